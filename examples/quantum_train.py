"""All weights of a CNN from 8 small circuits, trained, then plain again: `python examples/quantum_train.py`.

Needs scikit-learn, for its handwritten digits.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from qpa_hf import generate, materialize


def build() -> nn.Module:
    """Return an ordinary network; nothing of it knows that its weights will be generated."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(96, 10),
    )  # fmt: skip


pixels, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
images = pixels.float().view(-1, 1, 8, 8) / 16

torch.manual_seed(0)
model = generate(build(), chunk_size=64)
print(f"{sum(p.numel() for p in model.parameters()):,} numbers are trained")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
for _ in range(300):
    rows = torch.randint(1200, (64,))
    loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

torch.save(materialize(model).state_dict(), "digits.pt")  # plain tensors, under the network's own names

plain = build()
plain.load_state_dict(torch.load("digits.pt"))
n_plain = sum(p.numel() for p in plain.parameters())
accuracy = (plain(images[1200:]).argmax(1) == labels[1200:]).float().mean()
print(f"the plain network has {n_plain:,} numbers and knows {accuracy:.1%} of the digits that it has not seen")
