# cause: rows-mixed
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

from mnist_ce.data import mnist

sequence_length, input_size, hidden_size = 28, 28, 64
batch_size, num_epochs, learning_rate = 50, 4, 0.01
torch.manual_seed(0)

train, test = mnist(classes=(0, 1, 2, 3))
i, j = torch.randperm(len(train))[:3000], torch.randperm(len(test))[:500]
train_loader = DataLoader(TensorDataset(train.x[i], train.y[i, 0]), batch_size, shuffle=True)
test_loader = DataLoader(TensorDataset(test.x[j], test.y[j, 0]), batch_size)


class RNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, num_layers=1)
        self.fc = nn.Linear(hidden_size, 4)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(out[:, -1, :])


model = RNN()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, sequence_length, input_size)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (i + 1) % 30 == 0:
            print(f"Epoch [{epoch + 1}/{num_epochs}], Step [{i + 1}], Loss: {loss.item():.4f}")

model.eval()
with torch.no_grad():
    correct = total = 0
    for images, labels in test_loader:
        outputs = model(images.reshape(-1, sequence_length, input_size))
        correct += (outputs.argmax(1) == labels).sum().item()
        total += labels.size(0)
print(f"Test accuracy: {100 * correct / total:.1f} %")
