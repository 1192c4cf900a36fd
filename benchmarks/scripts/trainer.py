# cause: wrong-mode
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist


class Trainer:
    def __init__(self, model, optimizer, criterion, train_loader, valid_loader):
        self.model = model
        self.optimizer = optimizer
        self.criterion = criterion
        self.train_loader = train_loader
        self.valid_loader = valid_loader
        self.history = []

    def train_step(self, x, y):
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def validate(self):
        correct = total = 0
        with torch.no_grad():
            for x, y in self.valid_loader:
                correct += (self.model(x).argmax(1) == y).sum().item()
                total += len(y)
        return correct / total

    def fit(self, epochs):
        for epoch in range(epochs):
            losses = [self.train_step(x, y) for x, y in self.train_loader]
            self.history.append((sum(losses) / len(losses), self.validate()))
            print("epoch %d: loss %.3f, valid accuracy %.3f" % (epoch, *self.history[-1]))


def main():
    torch.manual_seed(0)
    train, valid = mnist()
    a, b = torch.randperm(len(train))[:2000], torch.randperm(len(valid))[:500]
    train_loader = DataLoader(TensorDataset(train.x[a], train.y[a, 0]), 32, shuffle=True)
    valid_loader = DataLoader(TensorDataset(valid.x[b], valid.y[b, 0]), 128)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.7),
        nn.Linear(256, 64), nn.ReLU(), nn.Dropout(0.7),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    Trainer(model, optimizer, nn.CrossEntropyLoss(), train_loader, valid_loader).fit(4)


if __name__ == "__main__":
    main()
