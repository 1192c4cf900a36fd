# cause: none
import torch

from mnist_ce.data import mnist_sample

torch.manual_seed(0)
train, valid = mnist_sample()
train = train[torch.randperm(len(train))[:2000]]
valid = valid[torch.randperm(len(valid))[:500]]


def init_params(size, std=1.0):
    return (torch.randn(size) * std).requires_grad_()


weights = init_params((28 * 28, 1))
bias = init_params(1)
params = weights, bias


def linear1(xb):
    return xb @ weights + bias


def mnist_loss(predictions, targets):
    predictions = predictions.sigmoid()
    return torch.where(targets == 1, 1 - predictions, predictions).mean()


def calc_grad(xb, yb, model):
    preds = model(xb)
    loss = mnist_loss(preds, yb)
    loss.backward()


def train_epoch(model, lr, params):
    order = torch.randperm(len(train))
    for rows in order.split(128):
        calc_grad(train.x[rows], train.y[rows], model)
        for p in params:
            p.data -= p.grad * lr
            p.grad.zero_()


def batch_accuracy(xb, yb):
    preds = xb.sigmoid()
    correct = (preds > 0.5) == yb
    return correct.float().mean()


def validate_epoch(model):
    return round(batch_accuracy(model(valid.x), valid.y).item(), 4)


for i in range(20):
    train_epoch(linear1, 1.0, params)
    print(validate_epoch(linear1), end=" ")
print()
