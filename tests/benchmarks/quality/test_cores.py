"""The bench's own cores between frozen factors: their counts, their start, and what they compute."""

import itertools

import pytest
import tiny
import torch

from benchmarks.quality.arms import ARMS, OF_ADDRESSES, matched_chunk, n_trained
from benchmarks.quality.cores import FORMS, Circuit, Leading, Paired, Rotation, n_circuit_layers, rotation_side
from benchmarks.quality.fitting import prepare
from benchmarks.quality.on_bases import OnBases
from benchmarks.quality.task import Targets
from qpa_hf import QPAConfig
from qpa_hf.generator.sources import SOURCES
from qpa_hf.models import bank_of

RANK, N = 8, 60
DOUBLE = torch.float64


def core(form, n=N, rank=RANK):
    """A core with random numbers, in double precision."""
    rng = torch.Generator().manual_seed(0)
    made = form(torch.eye(rank), rng, n).double()
    for numbers in made.parameters():
        numbers.data.normal_(generator=rng)
    return made


def n_of(module):
    return sum(numbers.numel() for numbers in module.parameters())


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.sst2(tmp_path_factory.mktemp("sst2"))


@pytest.mark.parametrize(
    ("form", "n"),
    [
        (Rotation, RANK * (RANK - 1) // 2),
        (Leading, N),
        (Circuit, RANK + 2 * 3 * ((N - RANK) // 6)),
        (Paired, RANK + 2 * 3 * ((N - RANK) // 6)),
    ],
)
def test_count_is_the_formulas(form, n):
    assert n_of(core(form)) == n


@pytest.mark.parametrize("form", [Rotation, Leading, Circuit, Paired])
def test_core_starts_at_zero(form):
    made = form(torch.eye(RANK), torch.Generator().manual_seed(0), N)
    assert torch.equal(made.core().abs(), torch.zeros(RANK, RANK))


def test_rotation_is_the_exponential_of_a_skew_matrix():
    made = core(Rotation)
    skew = torch.zeros(RANK, RANK, dtype=DOUBLE)
    values = iter(made.values.tolist())
    for i in range(RANK):
        for j in range(i + 1, RANK):
            skew[i, j] = next(values)
            skew[j, i] = -skew[i, j]
    term, total = torch.eye(RANK, dtype=DOUBLE), torch.zeros(RANK, RANK, dtype=DOUBLE)
    for k in range(1, 80):
        term = term @ skew / k
        total = total + term
    torch.testing.assert_close(made.core(), total, atol=1e-9, rtol=0)


@pytest.mark.parametrize("form", [Circuit, Paired])
def test_factors_are_orthogonal(form):
    factors = core(form).factors()
    torch.testing.assert_close(factors @ factors.mT, torch.eye(RANK, dtype=DOUBLE).expand(2, -1, -1))


def test_circuit_is_layers_of_rotations_and_cz_gates():
    made = core(Circuit)
    n_layers = n_circuit_layers(RANK, N)
    cz = torch.diag(torch.tensor([1.0, 1, 1, -1], dtype=DOUBLE))
    one = torch.eye(2, dtype=DOUBLE)
    between = [torch.kron(cz, one), torch.kron(one, cz)]  # on qubits (0, 1), then on (1, 2)
    for angles, found in zip(made.angles, made.factors(), strict=True):
        plain = torch.eye(RANK, dtype=DOUBLE)
        for layer, row in enumerate(angles.view(n_layers, 3)):
            if layer:
                plain = between[(layer - 1) % 2] @ plain
            turns = [torch.stack([torch.stack([c, -s]), torch.stack([s, c])]) for c, s in _halves(row)]
            plain = torch.kron(torch.kron(turns[0], turns[1]), turns[2]) @ plain
        torch.testing.assert_close(found, plain)


def _halves(angles):
    return [((angle / 2).cos(), (angle / 2).sin()) for angle in angles]


def test_control_pairs_each_state_once_and_at_random():
    pairs = core(Paired).generators.abs()
    assert torch.equal(pairs.sum(-1), torch.ones(pairs.shape[:-1], dtype=DOUBLE))
    assert len({tuple(one.flatten().tolist()) for one in pairs.flatten(0, 1)}) > len(pairs[0]) // 2


def test_leading_core_has_its_numbers_in_the_first_rows():
    made = core(Leading, n=7)
    assert (made.core() != 0).nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]]


def test_rotation_side_is_the_largest_that_fits():
    for n in range(1, 300):
        side = rotation_side(n)
        assert side * (side - 1) // 2 <= n < (side + 1) * side // 2


@pytest.mark.parametrize("form", FORMS)
def test_untrained_adapter_leaves_the_base_as_it_is(form, task):
    made = config(form, task)
    model = prepare(task, made, 0, "cpu").eval()
    batch = next(task.batches(0))
    torch.testing.assert_close(model(**batch).logits, task.base()(**batch).logits)
    assert all("lora_B" in name for name, numbers in model.named_parameters() if numbers.requires_grad)


def config(form, task, rank=4):
    own = {"r": rank, "target_modules": task.targets.modules, "task_type": None}
    return OnBases(form, 10, 0, QPAConfig(basis="gradient", source="direct", **own))


def test_rotation_turns_the_weight_within_the_gradients_right_vectors(task):
    model = prepare(task, config("rotation", task), 0, "cpu").eval()
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    made, a = layer.lora_B["default"], layer.lora_A["default"].weight
    made.values.data.normal_()
    weight = layer.get_base_layer().weight
    turned = weight + made.left @ made.core() @ a
    torch.testing.assert_close(turned @ turned.T, weight @ weight.T, atol=1e-5, rtol=1e-4)


def test_direct_core_on_the_same_bases_computes_the_same(task):
    """The bases, in their order and with LoRA's scale, are those of QPA's own direct cores."""
    ours = prepare(task, config("circuit", task), 0, "cpu").eval()
    theirs = prepare(task, config("circuit", task).bases, 0, "cpu").eval()
    with torch.no_grad():
        for module in ours.modules():
            if isinstance(module, Circuit):
                module.diagonal.fill_(0.1)
        for numbers in theirs.parameters():
            if numbers.requires_grad:
                numbers.copy_((0.1 * torch.eye(4)).flatten().repeat(numbers.numel() // 16))
    batch = next(task.batches(0))
    torch.testing.assert_close(ours(**batch).logits, theirs(**batch).logits)
    assert not torch.allclose(ours(**batch).logits, task.base()(**batch).logits)


TARGETS = {n: Targets("", ((384, 384),) * n, "", "", None) for n in (6, 8, 12)}  # of the bench's tasks


@pytest.mark.parametrize("n_targets", TARGETS)
@pytest.mark.parametrize("source", ["free", "random", "bits"])
def test_matched_control_has_as_many_numbers_within_two_percent(source, n_targets):
    n_generated = 400 * n_targets
    own = n_trained("circuit", n_generated, 200)
    other = n_trained(source, n_generated, matched_chunk(source, n_generated))
    assert abs(other - own) <= 0.02 * own


@pytest.mark.parametrize("name", ["", ", free matched", ", random matched", ", bits matched"])
def test_formula_of_the_count_is_the_models(name, tmp_path):
    task = tiny.wikitext(tmp_path, "all")
    made = ARMS[f"QPA gradient r=20{name}"].make(task.targets, 0)
    model = prepare(task, made, 0, "cpu")
    source = name.removeprefix(", ").removesuffix(" matched") or "circuit"
    n_generated = 400 * len(task.targets.shapes)
    chunk = matched_chunk(source, n_generated) if name else 200
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == n_trained(source, n_generated, chunk)


def test_free_numbers_start_as_the_circuits_have_them(tmp_path):
    task = tiny.wikitext(tmp_path, "all")
    made = ARMS["QPA gradient r=20, free matched"].make(task.targets, 0)
    generator, circuits = (bank_of(prepare(task, one, 0, "cpu")).generator for one in (made, made.circuits))
    assert generator.random_features.requires_grad
    with torch.no_grad():
        expected = SOURCES["circuit"].columns(circuits)
    torch.testing.assert_close(generator.random_features.data, expected, atol=0, rtol=0)


@pytest.mark.parametrize("n_targets", TARGETS)
@pytest.mark.parametrize("name", ["aligned orthogonal", "Quantum-PEFT core"])
def test_core_and_control_have_the_same_count_of_a_thousand_to_twelve_hundred(name, n_targets):
    control = next(one for one, arm in ARMS.items() if arm.control_of == name)
    counts = []
    for one in (name, control):
        config = ARMS[one].make(TARGETS[n_targets], 0)
        form = FORMS[config.form][0](torch.eye(config.bases.r), torch.Generator(), config.n)
        counts.append(n_targets * n_of(form))
    assert counts[0] == counts[1]
    assert 1000 <= counts[0] <= 1200


def test_forms_of_addresses_have_the_same_count_within_two_percent():
    """Counts are of the task's own sizes: r = 32 on eight square layers of 96."""
    counts = {name: OF_ADDRESSES[name].make(TARGETS[8], 0) for name in OF_ADDRESSES}
    n_generated = 8 * 32 * (96 + 96)
    found = []
    for config in counts.values():
        if not isinstance(config, QPAConfig):
            found.append(config.theta_d_length)
            continue
        n_chunks = -(-n_generated // config.chunk_size)
        n_qubits = (n_chunks - 1).bit_length()
        inputs = n_qubits if config.source == "bits" else config.n_circuits
        instead = {
            "circuit": config.n_circuits * config.circuit_depth * n_qubits,
            "free": config.n_circuits * n_chunks,
        }
        widths = (inputs, *config.mapping_widths, config.chunk_size)
        found.append(instead.get(config.source, 0) + sum((a + 1) * b for a, b in itertools.pairwise(widths)))
    assert found == [1090, 1087, 1090, 1082, 1090]
