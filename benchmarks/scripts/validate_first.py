# cause: lr-large
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist

LR = 10
EPOCHS = 3
BATCH_SIZE = 50


def subset(digits, n):
    rows = torch.randperm(len(digits))[:n]
    return TensorDataset(digits.x[rows], digits.y[rows].squeeze(1))


def validate(model, loader, criterion):
    model.eval()
    loss, correct, count = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            out = model(x)
            loss += criterion(out, y).item() * len(y)
            correct += (out.argmax(dim=1) == y).sum().item()
            count += len(y)
    model.train()
    return loss / count, correct / count


torch.manual_seed(42)
train_set, valid_set = mnist()
train_loader = DataLoader(subset(train_set, 2000), batch_size=BATCH_SIZE, shuffle=True)
valid_loader = DataLoader(subset(valid_set, 500), batch_size=BATCH_SIZE)

model = nn.Sequential(
    nn.Linear(784, 100), nn.ReLU(),
    nn.Linear(100, 50), nn.ReLU(),
    nn.Linear(50, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=LR)

loss, acc = validate(model, valid_loader, criterion)
print(f"before training: loss {loss:.4f}, accuracy {acc:.2%}")
for epoch in range(EPOCHS):
    for x, y in train_loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    loss, acc = validate(model, valid_loader, criterion)
    print(f"epoch {epoch + 1}: loss {loss:.4f}, accuracy {acc:.2%}")
