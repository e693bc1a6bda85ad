"""The gradient that is written out by hand against autograd, and against transformers and PEFT."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genba.core.protocols import Array
from genba.learn.language.examples import Example
from genba.learn.language.layout import Layout
from genba.learn.language.merge import adapted
from genba.learn.language.network import Network
from genba.learn.language.objectives import Preference
from genba.learn.language.optimiser import Optimiser
from genba.learn.language.parameters import (
    Parameters,
    adapter_slots,
    new_adapter,
    weight_slots,
)
from genba.learn.language.passes import add_gradient, log_probabilities
from genba.learn.language.shape import Shape
from tests.unit.lang_train_parts import SHAPE, conversations, plain_loss, preferences, weights

RANK, SCALE = 3, 2.0


def blame(said: torch.Tensor, layout: Layout, examples: list[Example]) -> torch.Tensor:
    return -torch.tensor([e.weight for e in examples])[layout.of]


def gradient(
    network: Network, parameters: Parameters, examples: list[Example], *, recompute: bool = False
) -> tuple[float, dict[str, Array]]:
    parameters.gradient.zero_()
    said, layout = add_gradient(
        network, examples, lambda s, at: blame(s, at, examples), recompute=recompute
    )
    loss = float(blame(said, layout, examples) @ said)
    return loss, parameters.arrays(parameters.gradient)


def adapter(
    shape: Shape, arrays: dict[str, Array], kind: torch.dtype
) -> tuple[Network, Parameters]:
    parameters = Parameters(adapter_slots(shape, RANK))
    new_adapter(parameters, 0)
    parameters.values.add_(torch.randn(len(parameters.values), generator=torch.Generator()) * 0.1)
    network = Network(shape, arrays, kind)
    network.learn_adapter(parameters, SCALE)
    return network, parameters


def close(mine: dict[str, Array], theirs: dict[str, Array], tolerance: float = 1e-5) -> None:
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        worst = np.abs(array - theirs[name]).max() / np.abs(theirs[name]).max()
        assert worst < tolerance, (name, worst)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_the_gradient_of_every_weight_is_that_of_autograd(tied: bool, recompute: bool) -> None:
    shape = replace(SHAPE, tied=tied)
    arrays, examples = weights(shape), conversations(5)
    leaves = {n: torch.tensor(a, requires_grad=True) for n, a in arrays.items()}
    wanted = plain_loss(shape, leaves, examples)
    wanted.backward()
    parameters = Parameters(weight_slots(shape))
    parameters.set(arrays)
    network = Network(shape, arrays, torch.float32)
    network.learn_all(parameters)
    loss, mine = gradient(network, parameters, examples, recompute=recompute)
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    close(mine, {n: leaf.grad.numpy() for n, leaf in leaves.items() if leaf.grad is not None})


def test_the_gradient_of_an_adapter_is_that_of_autograd() -> None:
    arrays, examples = weights(SHAPE), conversations(6, seed=1)
    network, parameters = adapter(SHAPE, arrays, torch.float32)
    values = parameters.arrays()
    leaves = {n: torch.tensor(a, requires_grad=True) for n, a in values.items()}
    whole = with_adapter(arrays, leaves)
    wanted = plain_loss(SHAPE, whole, examples)
    wanted.backward()
    loss, mine = gradient(network, parameters, examples)
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    close(mine, {n: leaf.grad.numpy() for n, leaf in leaves.items() if leaf.grad is not None})


def test_the_gradient_of_preferences_is_that_of_autograd() -> None:
    arrays, pairs = weights(SHAPE), preferences(4, seed=6)
    network, parameters = adapter(SHAPE, arrays, torch.float32)
    objective = Preference(pairs, beta=0.3)
    before = objective.prepare(network, 100, lambda: None)["pairs"]
    before -= np.random.default_rng(0).normal(0, 2, before.shape)  # as if it had moved
    parameters.gradient.zero_()
    found = objective.learn(network, range(4), 4.0, False)
    leaves = {n: torch.tensor(a, requires_grad=True) for n, a in parameters.arrays().items()}
    whole = with_adapter(arrays, leaves)
    wanted = torch.zeros(())
    for pair, (chosen, rejected) in zip(pairs, before, strict=True):
        moved = -plain_loss(SHAPE, whole, [alone(pair.chosen)]) - chosen
        moved = moved + plain_loss(SHAPE, whole, [alone(pair.rejected)]) + rejected
        wanted = wanted - torch.nn.functional.logsigmoid(0.3 * moved)
    (wanted / 4).backward()
    assert found.loss == pytest.approx(wanted.item(), rel=1e-4)
    mine = parameters.arrays(parameters.gradient)
    close(mine, {n: leaf.grad.numpy() for n, leaf in leaves.items()}, 1e-4)


def alone(example: Example) -> Example:
    return replace(example, weight=1.0)


def with_adapter(
    arrays: dict[str, Array], leaves: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    whole = {n: torch.tensor(a) for n, a in arrays.items()}
    for name, leaf in leaves.items():
        if name.endswith("lora_A.weight"):
            of = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") + ".weight"
            whole[of] = whole[of] + SCALE * leaves[name.replace("lora_A", "lora_B")] @ leaf
    return whole


def test_conversations_beside_each_other_do_not_see_each_other() -> None:
    network, _ = adapter(SHAPE, weights(SHAPE), torch.float32)
    examples = conversations(7, seed=2)
    together, of = log_probabilities(network, examples)
    for i, example in enumerate(examples):
        alone, _ = log_probabilities(network, [example])
        np.testing.assert_allclose(together[of == i], alone, atol=1e-5)


def test_bfloat16_points_the_same_way() -> None:
    arrays, examples = weights(SHAPE), conversations(12, seed=3)
    found = []
    for kind in (torch.float32, torch.bfloat16):
        network, parameters = adapter(SHAPE, arrays, kind)
        gradient(network, parameters, examples)
        found.append(parameters.gradient.clone())
    exact, rounded = found
    assert float(torch.cosine_similarity(exact, rounded, 0)) > 0.999


def test_a_merged_adapter_says_what_the_adapter_says() -> None:
    arrays, examples = weights(SHAPE), conversations(4, seed=4)
    network, parameters = adapter(SHAPE, arrays, torch.float32)
    settings = {"rank": RANK, "alpha": SCALE * RANK}
    merged = Network(SHAPE, adapted(arrays, parameters.arrays(), settings), torch.float32)
    np.testing.assert_allclose(
        log_probabilities(network, examples)[0], log_probabilities(merged, examples)[0], atol=1e-4
    )


def test_an_adapter_of_another_rank_or_model_is_refused() -> None:
    arrays = weights(SHAPE)
    _, parameters = adapter(SHAPE, arrays, torch.float32)
    with pytest.raises(ValueError, match="rank"):
        adapted(arrays, parameters.arrays(), {"rank": 4, "alpha": 8})
    with pytest.raises(ValueError, match="no tensor"):
        adapted(arrays, {"model.other.weight": np.zeros(3, np.float32)}, {})
    with pytest.raises(ValueError, match="shape"):
        parameters.set({parameters.slots[0].parts[0].name: np.zeros((1, 1), np.float32)})


@pytest.mark.slow
def test_a_step_is_that_of_torch() -> None:
    parameters = Parameters(adapter_slots(SHAPE, RANK))
    parameters.values.copy_(torch.randn(len(parameters.values)))
    theirs = torch.nn.Parameter(parameters.values.clone())
    optimiser = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.2)
    mine = Optimiser(parameters, clip=50.0, weight_decay=0.2)
    for step in range(4):
        gradient = torch.randn(len(theirs)) * 10 ** (step - 2)
        parameters.gradient.copy_(gradient)
        theirs.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 50.0)
        optimiser.step()
        mine.move(0.1, step)
        torch.testing.assert_close(parameters.values, theirs.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # between the two
def test_transformers_and_peft_say_the_same() -> None:
    peft: Any = pytest.importorskip("peft")
    transformers: Any = pytest.importorskip("transformers")
    arrays, examples = weights(SHAPE), conversations(5, seed=5)
    config = transformers.LlamaConfig(
        vocab_size=SHAPE.vocabulary,
        hidden_size=SHAPE.width,
        intermediate_size=SHAPE.inner,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.key_heads,
        head_dim=SHAPE.head_width,
        rms_norm_eps=SHAPE.epsilon,
        rope_theta=SHAPE.rope,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict({n: torch.tensor(a) for n, a in arrays.items()}, strict=False)
    lora = peft.LoraConfig(r=RANK, lora_alpha=SCALE * RANK, target_modules="all-linear")
    model = peft.get_peft_model(model, lora).eval()
    network, parameters = adapter(SHAPE, arrays, torch.float32)
    peft.set_peft_model_state_dict(
        model, {n: torch.tensor(a) for n, a in parameters.arrays().items()}
    )
    total = torch.zeros(())
    for example in examples:
        tokens = torch.from_numpy(example.tokens.astype(np.int64))[None]
        labels = tokens.masked_fill(~torch.from_numpy(example.answer)[None], -100)
        logits = model(tokens).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
        total = total + example.weight * losses
    total.backward()
    loss, mine = gradient(network, parameters, examples)
    assert loss == pytest.approx(total.item(), rel=1e-5)
    theirs = {
        name.replace(".default", ""): tensor.grad.numpy()
        for name, tensor in model.named_parameters()
        if tensor.grad is not None
    }
    close(mine, theirs)
