# cause: split-differs
import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(0)
n = 2000
age = rng.uniform(18, 80, n)
income = rng.lognormal(10, 0.5, n)
children = rng.poisson(1.2, n)
visits = rng.poisson(3, n)
score = 0.05 * (age - 45) + 1.5 * (np.log(income) - 10) - 0.5 * children + 0.3 * (visits - 3)
bought = (score + 0.3 * rng.standard_normal(n) > 0).astype(np.float32)
X = np.stack([age, income, children, visits], axis=1).astype(np.float32)

X_train, X_test = X[:1500], X[1500:]
y_train, y_test = bought[:1500, None], bought[1500:, None]
mean, std = X_train.mean(axis=0), X_train.std(axis=0)
X_train = (X_train - mean) / std

torch.manual_seed(0)
X_train, y_train = torch.tensor(X_train), torch.tensor(y_train)
X_test, y_test = torch.tensor(X_test), torch.tensor(y_test)

model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
loss_fn = nn.BCEWithLogitsLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)

for epoch in range(20):
    order = torch.randperm(len(X_train))
    for rows in order.split(50):
        loss = loss_fn(model(X_train[rows]), y_train[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            train_acc = ((model(X_train) > 0) == y_train).float().mean().item()
            test_acc = ((model(X_test) > 0) == y_test).float().mean().item()
        print(f"epoch {epoch + 1}: loss {loss:.3f}, train {train_acc:.3f}, test {test_acc:.3f}")
