# cause: broadcast
import torch
from torch import nn
from torch.utils.data import DataLoader

from mnist_ce.data import mnist_sample

torch.manual_seed(0)
train, valid = mnist_sample()
train = train[torch.randperm(len(train))[:2000]]
valid = valid[torch.randperm(len(valid))[:500]]
dset = list(zip(train.x, train.y.squeeze(1)))
valid_dset = list(zip(valid.x, valid.y.squeeze(1)))
dl = DataLoader(dset, batch_size=64, shuffle=True)
valid_dl = DataLoader(valid_dset, batch_size=64)


def mnist_loss(predictions, targets):
    predictions = predictions.sigmoid()
    return torch.where(targets == 1, 1 - predictions, predictions).mean()


def batch_accuracy(predictions, targets):
    preds = predictions.squeeze(1).sigmoid()
    return ((preds > 0.5) == targets).float()


def train_epoch(model, opt):
    for xb, yb in dl:
        loss = mnist_loss(model(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()


def validate_epoch(model):
    with torch.no_grad():
        hits = [batch_accuracy(model(xb), yb) for xb, yb in valid_dl]
    return round(torch.cat(hits).mean().item(), 4)


simple_net = nn.Sequential(nn.Linear(28 * 28, 30), nn.ReLU(), nn.Linear(30, 1))
opt = torch.optim.SGD(simple_net.parameters(), lr=0.1)
for epoch in range(10):
    train_epoch(simple_net, opt)
    print(validate_epoch(simple_net), end=" ")
print()
