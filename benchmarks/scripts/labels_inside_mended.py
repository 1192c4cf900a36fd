# cause: none
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mnist_ce.data import Digits, mnist


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class Images(Dataset):
    def __init__(self, digits: Digits):
        self.digits = digits

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, k):
        return {"labels": self.digits.y[k, 0], "pixel_values": self.digits.x[k].view(1, 28, 28)}


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(400, 10))

    def forward(self, pixel_values, labels=None):
        logits = self.head(self.features(pixel_values))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return Output(loss, logits)


def accuracy(model, loader):
    model.eval()
    right = count = 0
    for batch in loader:
        with torch.no_grad():
            answers = model(**batch).logits.argmax(-1)
        right += (answers == batch["labels"]).sum().item()
        count += len(answers)
    return right / count


torch.manual_seed(0)
train, valid = mnist()
rows = torch.randperm(len(train))[:4000]
loader = DataLoader(Images(train[rows]), batch_size=64, shuffle=True)
valid_loader = DataLoader(Images(valid[:1000]), batch_size=250)
model = Classifier()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(3):
    model.train()
    for batch in loader:
        outputs = model(**batch)
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(epoch, outputs.loss.item(), accuracy(model, valid_loader))
