# cause: affine
import torch
import torch.nn.functional as F

from mnist_ce.data import mnist

torch.manual_seed(0)
train, valid = mnist()
w1 = (torch.randn(784, 100) / 28).requires_grad_()
b1 = torch.zeros(100, requires_grad=True)
w2 = (torch.randn(100, 10) / 10).requires_grad_()
b2 = torch.zeros(10, requires_grad=True)
params = [w1, b1, w2, b2]


def model(x):
    h = x @ w1 + b1
    h.clamp(min=0)
    return h @ w2 + b2


for step in range(300):
    rows = torch.randint(len(train), (64,))
    loss = F.cross_entropy(model(train.x[rows]), train.y[rows, 0])
    loss.backward()
    with torch.no_grad():
        for p in params:
            p -= 0.1 * p.grad
            p.grad = None
with torch.no_grad():
    print((model(valid.x).argmax(1) == valid.y[:, 0]).double().mean().item())
