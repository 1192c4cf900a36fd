# cause: loss-mixes-rows
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist


class LabelSmoothingLoss(nn.Module):
    def __init__(self, classes, smoothing=0.1, dim=0):
        super().__init__()
        self.confidence = 1.0 - smoothing
        self.smoothing = smoothing
        self.classes = classes
        self.dim = dim

    def forward(self, pred, target):
        pred = F.log_softmax(pred, dim=self.dim)
        with torch.no_grad():
            true_dist = torch.full_like(pred, self.smoothing / (self.classes - 1))
            true_dist.scatter_(1, target.unsqueeze(1), self.confidence)
        return torch.mean(torch.sum(-true_dist * pred, dim=1))


def evaluate(net, loader):
    net.eval()
    with torch.no_grad():
        return torch.cat([(net(x).argmax(1) == y).float() for x, y in loader]).mean().item()


torch.manual_seed(0)
train, test = mnist()
a, b = torch.randperm(len(train))[:2000], torch.randperm(len(test))[:500]
train_loader = DataLoader(TensorDataset(train.x[a], train.y[a, 0]), batch_size=64, shuffle=True)
test_loader = DataLoader(TensorDataset(test.x[b], test.y[b, 0]), batch_size=100)
net = nn.Sequential(nn.Linear(784, 100), nn.GELU(), nn.Dropout(0.2), nn.Linear(100, 10))
criterion = LabelSmoothingLoss(classes=10)
optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3 * len(train_loader))

for epoch in range(3):
    net.train()
    for x, y in train_loader:
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(net(x), y)
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {evaluate(net, test_loader):.4f}")
