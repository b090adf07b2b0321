"""CartPole from gymnasium, and a policy network trained on its own episodes (REINFORCE)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from benchmarks.quantum_train.task import Part

N_OBSERVED, N_ACTIONS = 4, 2
SCALE = torch.tensor([2.4, 2.0, 0.2095, 2.0])  # ends of the track and of the angle; usual speeds
EVALUATION_SEEDS = {"development": 10_001, "test": 20_002}


class Episodes(NamedTuple):
    """What happened in several episodes side by side, until the last one ended.

    Args:
        observed: scaled observations, shape (n_times, n_episodes, 4).
        actions: shape (n_times, n_episodes).
        is_alive: whether the episode was still going on, so that the time counts, shape (n_times, n_episodes).
    """

    observed: Tensor
    actions: Tensor
    is_alive: Tensor

    @property
    def mean_return(self) -> float:
        """Times that a pole stayed up, on average; at most 500."""
        return self.is_alive.float().sum(0).mean().item()


@torch.no_grad()
def play(model: nn.Module, n_episodes: int, seed: int, is_greedy: bool) -> Episodes:
    """Play episodes with the model's actions, the likeliest ones or drawn ones."""
    import gymnasium

    poles: Any = gymnasium.make_vec("CartPole-v1", num_envs=n_episodes, vectorization_mode="vector_entry_point")
    rng = torch.Generator().manual_seed(seed)
    now, _ = poles.reset(seed=seed)
    is_alive = torch.ones(n_episodes, dtype=torch.bool)
    times = []
    while is_alive.any():
        observed = torch.from_numpy(now) / SCALE
        logits = model(observed)
        if is_greedy:
            actions = logits.argmax(1)
        else:
            actions = torch.multinomial(logits.softmax(1), 1, generator=rng).squeeze(1)
        times.append((observed, actions, is_alive))
        now, _, has_fallen, is_over, _ = poles.step(actions.numpy())
        is_alive = is_alive & ~torch.from_numpy(has_fallen | is_over)
    return Episodes(*map(torch.stack, zip(*times, strict=True)))


@dataclass(frozen=True)
class CartPole:
    """Keep a pole up for 500 times; the measure is the mean return of greedy test episodes."""

    n_steps: int = 20  # just enough for the whole network; with 60 nearly every arm reaches 500
    n_episodes: int = 8  # of one update
    n_test: int = 64
    width: int = 64
    discount: float = 0.99
    entropy: float = 0.01  # its weight in the loss keeps actions random for a while

    name: ClassVar = "cartpole"
    network: ClassVar = "policy network with two hidden layers"
    measure: ClassVar = "return"
    unit: ClassVar = "steps"
    is_higher_better: ClassVar = True
    n_tuning: ClassVar = 2  # returns vary much

    def build(self, width: int) -> nn.Module:
        """Return a policy with two hidden layers of some width."""
        return nn.Sequential(
            nn.Linear(N_OBSERVED, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, N_ACTIONS)
        )

    def losses(self, model: nn.Module, seed: int) -> Iterator[Tensor]:
        """Yield REINFORCE's loss of new episodes: returns to go, less their mean at the same time, standardised."""
        for step in range(self.n_steps):
            episodes = play(model, self.n_episodes, seed * self.n_steps + step, is_greedy=False)
            alive = episodes.is_alive
            advantage = self._advantages(alive.float())[alive]
            policy = Categorical(logits=model(episodes.observed[alive]))
            gain = policy.log_prob(episodes.actions[alive]) * advantage / (advantage.std() + 1e-6)
            yield -(gain.mean() + self.entropy * policy.entropy().mean())

    def _advantages(self, rewards: Tensor) -> Tensor:
        to_go = torch.zeros_like(rewards)
        running = torch.zeros_like(rewards[0])
        for time in reversed(range(len(rewards))):
            running = rewards[time] + self.discount * running
            to_go[time] = running
        usual = to_go.sum(1, keepdim=True) / rewards.sum(1, keepdim=True)  # over the episodes still going on
        return to_go - usual

    def evaluate(self, model: nn.Module, part: Part) -> dict[str, float]:
        """Return the mean return of greedy episodes, and its negative as `loss`."""
        found = play(model, self.n_test, EVALUATION_SEEDS[part], is_greedy=True).mean_return
        return {"loss": -found, "return": found}

    def references(self) -> dict[str, float]:
        """Return the return of random actions."""
        undecided = nn.Linear(N_OBSERVED, N_ACTIONS)
        nn.init.zeros_(undecided.weight)
        nn.init.zeros_(undecided.bias)
        episodes = play(undecided, self.n_test, EVALUATION_SEEDS["test"], is_greedy=False)
        return {"random actions": episodes.mean_return}
