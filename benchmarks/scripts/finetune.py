# cause: not-optimised
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist

torch.manual_seed(3)


def loaders(classes, n_train, n_valid):
    train, valid = mnist(classes=classes)
    out = []
    for digits, n in (train, n_train), (valid, n_valid):
        rows = torch.randperm(len(digits))[:n]
        x, y = digits.x[rows].view(-1, 1, 28, 28), digits.y[rows].squeeze(1)
        out.append(DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True))
    return out


def accuracy(model, loader):
    model.eval()
    with torch.no_grad():
        hits = [(model(x).argmax(1) == y).float() for x, y in loader]
    return torch.cat(hits).mean().item()


def fit(model, optimizer, train, valid, epochs):
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(epochs):
        model.train()
        for x, y in train:
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch} loss {loss.item():.3f} accuracy {accuracy(model, valid):.3f}")
        torch.save({"epoch": epoch, "model": model.state_dict(),
                    "optimizer": optimizer.state_dict()}, "checkpoint.pt")


model = nn.Sequential()
model.add_module("features", nn.Sequential(
    nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
    nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()))
model.add_module("fc", nn.Linear(16 * 49, 5))

print("pretraining on 0 to 4")
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
fit(model, optimizer, *loaders((0, 1, 2, 3, 4), 1500, 500), epochs=2)

print("fine-tuning on 5 to 9")
for p in model.features.parameters():
    p.requires_grad = False
optimizer = torch.optim.Adam(model.fc.parameters(), lr=1e-3)
model.fc = nn.Linear(16 * 49, 5)
fit(model, optimizer, *loaders((5, 6, 7, 8, 9), 1500, 500), epochs=3)
