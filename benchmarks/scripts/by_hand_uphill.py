# cause: sign
import torch

from mnist_ce.data import mnist_sample

torch.manual_seed(0)
train, valid = mnist_sample()
weights = (torch.randn(784) * 0.01).requires_grad_()
bias = torch.zeros(1, requires_grad=True)


def predict(x):
    return torch.sigmoid(x @ weights + bias)


for epoch in range(2):
    for rows in torch.randperm(len(train)).split(100):
        x, y = train.x[rows], train.y[rows, 0].float()
        p = predict(x).clamp(1e-6, 1 - 1e-6)
        loss = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
        slopes = torch.autograd.grad(loss, [weights, bias])
        with torch.no_grad():
            for value, slope in zip([weights, bias], slopes):
                value += 0.1 * slope
    right = ((predict(valid.x) > 0.5) == valid.y[:, 0]).double().mean()
    print(epoch, loss.item(), right.item())
