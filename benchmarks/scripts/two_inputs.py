# cause: none
import torch
from torch import nn
from torch.utils.data import DataLoader


class Reader(nn.Module):
    """The mean of a sentence's words, without its padding."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(200, 32, padding_idx=0), nn.Linear(32, 4)

    def forward(self, input_ids, attention_mask, labels=None):
        mask = attention_mask.unsqueeze(-1).float()
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        scores = self.out(mean)
        if labels is None:
            return {"logits": scores}
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def sentences(count, generator):
    """Each class has 20 words of its own, half of a sentence; then comes padding."""
    found = []
    for _ in range(count):
        label, length = (int(torch.randint(high, (), generator=generator)) for high in (4, 9))
        own = 1 + 20 * label + torch.randint(20, (4,), generator=generator)
        other = torch.randint(81, 200, (1 + length,), generator=generator)
        words = torch.cat([own, other])
        ids = torch.zeros(14, dtype=torch.long)
        ids[: len(words)] = words[torch.randperm(len(words), generator=generator)]
        found.append(dict(attention_mask=(ids > 0).long(), input_ids=ids, labels=label))
    return found


torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
loader = DataLoader(sentences(3000, generator), batch_size=50, shuffle=True)
valid = DataLoader(sentences(500, generator), batch_size=100)
model = Reader()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for epoch in range(4):
    for batch in loader:
        loss = model(**batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = [model(**b)["logits"].argmax(1) == b["labels"] for b in valid]
    print(epoch, loss.item(), torch.cat(right).double().mean().item())
