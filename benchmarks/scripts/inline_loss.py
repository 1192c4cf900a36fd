# cause: gradients-accumulate
import torch
import torch.nn as nn
import torch.nn.functional as F

from mnist_ce.data import mnist

torch.manual_seed(0)
train, test = mnist()
keep = torch.randperm(len(train))[:3000]
x_train, y_train = train.x[keep], train.y[keep].squeeze(1)
keep = torch.randperm(len(test))[:500]
x_test, y_test = test.x[keep], test.y[keep].squeeze(1)

model = nn.Sequential(
    nn.Linear(784, 128),
    nn.ReLU(),
    nn.Linear(128, 10),
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

batch_size = 64
for epoch in range(3):
    permutation = torch.randperm(len(x_train))
    running = 0.0
    for i in range(0, len(x_train), batch_size):
        rows = permutation[i:i + batch_size]
        inputs, labels = x_train[rows], y_train[rows]
        log_probs = F.log_softmax(model(inputs), dim=1)
        loss = -log_probs[torch.arange(len(labels)), labels].mean()
        loss.backward()
        optimizer.step()
        running += loss.item() * len(labels)
    with torch.no_grad():
        accuracy = (model(x_test).argmax(1) == y_test).float().mean().item()
    print(f"epoch {epoch + 1}: loss {running / len(x_train):.3f}, accuracy {accuracy:.3f}")
