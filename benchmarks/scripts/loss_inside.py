# cause: not-finite
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist_sample


class Net(nn.Module):
    """Gives its loss in training and its answers otherwise."""

    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(784, 40), nn.Linear(40, 2)

    def forward(self, x, y=None):
        p = self.out(torch.relu(self.hidden(x))).softmax(1)
        return p.argmax(1) if y is None else -p[range(len(y)), y].log().mean()


torch.manual_seed(0)
train, valid = mnist_sample()
loader = DataLoader(TensorDataset(train.x, train.y[:, 0]), batch_size=100, shuffle=True)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
for epoch in range(2):
    for x, y in loader:
        optimizer.zero_grad()
        loss = net(x, y)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        print(epoch, loss.item(), (net(valid.x) == valid.y[:, 0]).double().mean().item())
