# cause: none
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mnist_ce.data import mnist


class DigitDataset(Dataset):
    """MNIST with a random order of its own."""

    def __init__(self, digits, size, seed=0):
        self.images = digits.x.view(-1, 1, 28, 28)
        self.labels = digits.y.squeeze(1)
        self.order = list(range(len(self.images)))
        random.Random(seed).shuffle(self.order)
        self.order = self.order[:size]
        self.labels = self.labels[self.order]

    def __len__(self):
        return len(self.order)

    def __getitem__(self, idx):
        image = self.images[self.order[idx]]
        label = self.labels[idx]
        return (image - 0.1307) / 0.3081, label


torch.manual_seed(0)
train_digits, test_digits = mnist()
train_loader = DataLoader(DigitDataset(train_digits, 2000), batch_size=32, shuffle=True)
test_loader = DataLoader(DigitDataset(test_digits, 500), batch_size=100)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
    nn.Flatten(), nn.Linear(32 * 6 * 6, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(3):
    model.train()
    total = 0.0
    for images, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in test_loader:
            correct += (model(images).argmax(1) == labels).sum().item()
    print(f"[{epoch}] loss {total / len(train_loader):.3f} acc {correct / 500:.3f}")
