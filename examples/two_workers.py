"""Alice and bob each hold half of the data. One network learns from both, and no sample leaves its owner."""

import torch
from torch import Tensor, nn

import fedmq

PLAN = fedmq.Plan(learning_rate=0.02, local_steps=5)
HALVES = {"alice": slice(0, 200), "bob": slice(200, 400)}


def samples(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, 10, generator=generator)
    noise = 0.1 * torch.randn(400, 1, generator=generator)  # so that no loss can fall below 0.01
    return inputs, inputs[:, :4].sum(1, keepdim=True).relu() + noise


def build_model() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1))


def load_data(client_id: str) -> fedmq.Data:
    inputs, targets = samples(seed=1)
    return fedmq.Data(train=(inputs[HALVES[client_id]], targets[HALVES[client_id]]))


def load_test_data() -> tuple[Tensor, Tensor]:
    return samples(seed=2)


loss = nn.MSELoss()


def train_centrally(steps: int) -> float:
    """The test loss after so many steps of plain PyTorch, with all the data in one place."""
    torch.manual_seed(0)
    model, (inputs, targets) = build_model(), samples(seed=1)
    optimizer = torch.optim.SGD(model.parameters(), PLAN.learning_rate)
    for _ in range(steps):
        batch = torch.randint(len(inputs), (PLAN.batch_size,))
        optimizer.zero_grad()
        loss(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    test_inputs, test_targets = load_test_data()
    return loss(model(test_inputs), test_targets).item()


def show(federation: fedmq.Sandbox, what: str) -> float:
    score = federation.evaluate()["loss"]
    print(f"version {federation.version:3}   loss {score:.4f}   {what}")
    return score


if __name__ == "__main__":
    torch.set_num_threads(1)  # so small a network gains nothing from more
    federation = fedmq.Sandbox(__file__, clients=["alice", "bob"], seed=0, plan=PLAN)
    show(federation, "nobody has trained")
    federation.run(versions=100)
    show(federation, "alice and bob")

    federation.unplug("alice")  # in the middle of her training; nobody waits for her
    federation.run(versions=50)
    score = show(federation, "bob alone")

    federation.plug("alice")
    before = 2 * score
    while score < 0.95 * before:  # until it has converged
        federation.run(versions=50)
        before, score = score, show(federation, "alice is back")

    steps = federation.updates * 5
    print(f"federated {score:.4f}, centrally {train_centrally(steps):.4f}, both after {steps} steps")
