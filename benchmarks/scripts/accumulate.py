# cause: none
import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist

torch.manual_seed(0)
ACCUMULATION_STEPS = 4
WARMUP = 10
EPOCHS = 6

train, valid = mnist()
a, b = torch.randperm(len(train))[:3000], torch.randperm(len(valid))[:500]
train_loader = DataLoader(TensorDataset(train.x[a], train.y[a, 0]), batch_size=16, shuffle=True)
valid_loader = DataLoader(TensorDataset(valid.x[b], valid.y[b, 0]), batch_size=100)

model = nn.Sequential(nn.Linear(784, 128), nn.LayerNorm(128), nn.SiLU(), nn.Linear(128, 10))
criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
total_steps = EPOCHS * len(train_loader) // ACCUMULATION_STEPS


def lr_at(step):
    if step < WARMUP:
        return step / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, total_steps - WARMUP)))


scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_at)

optimizer.zero_grad()
for epoch in range(EPOCHS):
    model.train()
    for i, (x, y) in enumerate(train_loader):
        loss = criterion(model(x), y) / ACCUMULATION_STEPS
        loss.backward()
        if (i + 1) % ACCUMULATION_STEPS == 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        correct = sum((model(x).argmax(1) == y).sum().item() for x, y in valid_loader)
    print(f"epoch {epoch}: accuracy {correct / len(valid_loader.dataset):.3f}")
