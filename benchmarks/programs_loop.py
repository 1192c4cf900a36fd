"""Planted faults of the optimizer, of the loop and of the data."""

import copy

import torch
from programs_base import (
    adam, augmented, bare_step, binary, by_label, close, conv, data_alone, dropping, faulty,
    flowers, houses, loader, mlp, more_digits, normal, normed, Pairs, parts, pictures, program,
    Program, rare, sgd, ten_digits, text, threes_sevens, Words,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

# ---- Faults of the optimizer and of the loop.


@faulty("not-optimised")
def head_replaced_later() -> Program:
    """The head is replaced after the optimizer was made. F 84911, hustzxd/EfficientPyTorch#1."""
    p = conv()
    model, loss, optimizer = parts(p)
    model[-1] = nn.Linear(16 * 7 * 7, 10)
    return p

@faulty("not-optimised")
def optimizer_of_a_copy() -> Program:
    """The optimizer holds the parameters of the model before deepcopy. pytorch/pytorch#14467."""
    model = mlp()
    other = copy.deepcopy(model)
    return program(model=model, optimizer=lambda _: sgd()(other))

@faulty("not-optimised")
def optimizer_of_last_fold() -> Program:
    """Cross-validation makes a model for each fold, the optimizer is that of the first."""
    first = Words()
    return text(Words(), optimizer=lambda _: adam(0.01)(first))

@faulty("not-optimised")
def head_left_out() -> Program:
    """Only the body's parameters are handed over; the new head keeps its zeros."""
    model = mlp()
    nn.init.zeros_(model[-1].weight)
    return program(model=model, optimizer=lambda m: torch.optim.SGD(m[:-1].parameters(), lr=0.1))

@faulty("gradients-accumulate")
def no_zero_grad() -> Program:
    """zero_grad is missing. SO 60335387, pytorch/examples#1424."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> float:
        out = model(xb)
        value = loss(out, yb)
        value.backward()
        optimizer.step()
        return value.item()

    return p | {"step": step}

@faulty("gradients-accumulate")
def no_zero_grad_adam() -> Program:
    """zero_grad is missing before Adam."""
    p = conv()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.train()
        loss(model(xb), yb).backward()
        optimizer.step()

    return p | {"step": step}

@faulty("gradients-accumulate")
def zero_grad_of_another() -> Program:
    """zero_grad of the optimizer of another model."""
    p = program()
    model, loss, optimizer = parts(p)
    optimizer_d = sgd()(mlp(1))  # the discriminator's

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer_d.zero_grad()
        loss(model(xb), yb).backward()
        optimizer.step()

    return p | {"step": step}

@faulty("gradients-accumulate")
def grad_kept_by_hand() -> Program:
    """The book's loop without p.grad.zero_(). hides=True"""
    p = binary()
    model, loss, _ = parts(p)
    lr = 1.0

    def step(xb: Tensor, yb: Tensor) -> None:
        loss(model(xb), yb).backward()
        for w in model.parameters():
            w.data -= w.grad * lr

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

@faulty("gradients-accumulate")
def step_in_every_batch() -> Program:
    """Accumulation over 8 batches, but the optimizer steps in each."""
    p = program()
    model, loss, optimizer = parts(p)
    seen = 0

    def step(xb: Tensor, yb: Tensor) -> None:
        nonlocal seen
        loss(model(xb), yb).backward()
        optimizer.step()
        seen += 1
        if seen % 8 == 0:
            optimizer.zero_grad()

    return p | {"step": step}

@faulty("weights-do-not-move")
def no_backward() -> Program:
    """loss.backward() is missing. tedlasai/learn2refocus#5."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> float:
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        optimizer.step()
        return value.item()

    return p | {"step": step}

@faulty("weights-do-not-move")
def no_step() -> Program:
    """optimizer.step() is missing. aalto-intelligent-robotics/sivl#2."""
    p = conv()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> float:
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        value.backward()
        return value.item()

    return p | {"step": step}

@faulty("weights-do-not-move")
def zero_grad_between() -> Program:
    """zero_grad between backward and step. F 12099."""
    p = program()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        value = loss(model(xb), yb)
        value.backward()
        optimizer.zero_grad()
        optimizer.step()

    return p | {"step": step}

@faulty("weights-do-not-move")
def scheduler_alone() -> Program:
    """scheduler.step() in place of optimizer.step()."""
    p = text()
    model, loss, optimizer = parts(p)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        loss(model(xb), yb).backward()
        scheduler.step()

    return p | {"step": step}

@faulty("weights-do-not-move")
def best_restored_always() -> Program:
    """The best weights, those of the start, are loaded after each step."""
    p = program()
    model, loss, optimizer = parts(p)
    best, best_loss = copy.deepcopy(model.state_dict()), 0.0  # best_loss should start at inf

    def step(xb: Tensor, yb: Tensor) -> None:
        nonlocal best, best_loss
        optimizer.zero_grad()
        value = loss(model(xb), yb)
        value.backward()
        optimizer.step()
        if value.item() < best_loss:
            best, best_loss = copy.deepcopy(model.state_dict()), value.item()
        model.load_state_dict(best)

    return p | {"step": step}

@faulty("weights-do-not-move")
def update_of_a_copy() -> Program:
    """w = w - lr * w.grad binds a name and leaves the weight."""
    p = binary()
    model, loss, _ = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.zero_grad()
        loss(model(xb), yb).backward()
        with torch.no_grad():
            for w in model.parameters():
                w = w - 0.1 * w.grad

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

@faulty("wrong-mode")
def eval_from_the_start() -> Program:
    """model.eval() before training: batch norm keeps mean 0. ermongroup/ncsn#2. hides=True"""
    p = program(model=normed())
    p["model"].eval()
    return p | {"step": bare_step(p)}

@faulty("wrong-mode")
def eval_never_left() -> Program:
    """Validation calls eval(), no one calls train() again. pliang279/MultiBench#26. hides=True"""
    p = program(model=dropping(), optimizer=adam())
    return p | {"step": bare_step(p)}

@faulty("wrong-mode")
def validates_with_dropout() -> Program:
    """Validation without eval(): four fifths of the units are missing. huggingface/lerobot#3668."""
    p = program(model=dropping(0.8), optimizer=adam())
    model, metric, valid = p["model"], p["metric"], p["valid"]

    def validate() -> float:
        with torch.no_grad():
            return sum(metric(model(xb), yb).item() for xb, yb in valid) / len(valid)

    return p | {"validate": validate}

@faulty("wrong-mode")
def validates_batch_norm_in_training() -> Program:
    """Validation without eval(): batch norm sees batches of one digit each."""
    x, y, xv, yv = ten_digits()
    order = yv.argsort()
    p = program((x, y, xv[order], yv[order]), model=normed())
    model, metric, valid = p["model"], p["metric"], p["valid"]

    @torch.no_grad()
    def validate() -> float:
        right = 0.0
        for xb, yb in valid:
            right += metric(model(xb), yb).item() * len(xb)
        return right / len(valid.dataset)

    return p | {"validate": validate}

@faulty("lr-large")
def lr_ten() -> Program:
    """lr=10: all ReLUs die in the first steps. F 43814."""
    return program(optimizer=sgd(10))

@faulty("lr-large")
def adam_lr_three_tenths() -> Program:
    """Adam at .3: the loss of a batch leaps, and comes back; that of many does not."""
    return program(optimizer=adam(0.3))

@faulty("lr-large")
def lr_three() -> Program:
    """lr=3 on MNIST. SO 48385830."""
    return program(optimizer=sgd(3, 0.0))

@faulty("lr-large")
def adam_lr_one() -> Program:
    """Adam with the learning rate of an SGD."""
    return conv(optimizer=adam(1.0))

@faulty("lr-large")
def prices_diverge() -> Program:
    """Prices by MSE at .5 with momentum .9: NaN. paiml/aprender#2459."""
    return program(houses(), mlp(1, 8), nn.MSELoss(), close, sgd(0.5))

@faulty("lr-small")
def lr_1e_8() -> Program:
    """lr=1e-8, a typo for 1e-3. F 85255."""
    return program(optimizer=sgd(1e-8))

@faulty("lr-small")
def adam_1e_9() -> Program:
    """Adam with lr=1e-9."""
    return conv(optimizer=adam(1e-9))

@faulty("lr-small")
def sgd_with_adams_rate() -> Program:
    """SGD without momentum at 1e-6 on 3 against 7."""
    return binary(optimizer=sgd(1e-6, 0.0))

@faulty("lr-small")
def decay_in_every_batch() -> Program:
    """StepLR meant for epochs is stepped in each batch: gone after ten."""
    p = program()
    scheduler = torch.optim.lr_scheduler.StepLR(p["optimizer"], step_size=1, gamma=0.1)
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        usual(xb, yb)
        scheduler.step()

    return p | {"step": step}

@faulty("weight-decay")
def decay_of_one() -> Program:
    """weight_decay=1 with SGD at .1."""
    return program(optimizer=sgd(weight_decay=1.0))

@faulty("weight-decay")
def adamw_decay_of_fifty() -> Program:
    """AdamW with weight_decay=50: a twentieth of each weight in each step."""
    return conv(optimizer=lambda m: torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=50))

@faulty("weight-decay")
def penalty_of_one() -> Program:
    """All squared weights are added to the loss as they are: lambda is left out."""
    p = conv(optimizer=sgd(0.01))
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        model.train()
        penalty = sum((w**2).sum() for w in model.parameters())
        optimizer.zero_grad()
        (loss(model(xb), yb) + penalty).backward()
        optimizer.step()

    return p | {"step": step}

# ---- Faults of the data.


@faulty("input-scale")
def grey_to_255() -> Program:
    """Grey values from 0 to 255. keras-team/keras#2711."""
    x, y, xv, yv = ten_digits()
    return program((x * 255, y, xv * 255, yv))

@faulty("input-scale")
def divided_twice() -> Program:
    """ToTensor divides by 255, and so does the data set."""
    x, y, xv, yv = ten_digits()
    return program((x / 255, y, xv / 255, yv), optimizer=sgd(0.01))

@faulty("input-scale")
def salary_in_cents() -> Program:
    """A column of a table is in the millions, the others are standardized."""
    x, y, xv, yv = flowers()
    for t in x, xv:
        t[:, 3] = 4e6 + 1e6 * t[:, 3]
    return program((x, y, xv, yv), mlp(3, 12), optimizer=sgd(0.01))

@faulty("input-scale")
def divided_twice_alone() -> Program:
    """Loaders alone, divided by 255 twice. soumith/imagenet-multiGPU.torch#18."""
    x, y, xv, yv = pictures()
    x, xv = (0.3081 * x + 0.1307) / 255, (0.3081 * xv + 0.1307) / 255
    return data_alone(x, y, xv, yv)

@faulty("bad-data")
def some_rows_nan() -> Program:
    """Five images of 1500 are NaN."""
    x, y, xv, yv = ten_digits()
    x[torch.randperm(len(x))[:5]] = float("nan")
    return program((x, y, xv, yv))

@faulty("bad-data")
def pixels_without_deviation() -> Program:
    """Each pixel is divided by its deviation, which is 0 at the border: 0 / 0."""
    x, y, xv, yv = ten_digits()
    mean, std = x.mean(0), x.std(0)
    return program(((x - mean) / std, y, (xv - mean) / std, yv))

@faulty("bad-data")
def label_ten() -> Program:
    """Zeros are labeled 10, as in SVHN: the loss raises."""
    x, y, xv, yv = ten_digits()
    y[y == 0], yv[yv == 0] = 10, 10
    return program((x, y, xv, yv))

@faulty("bad-data")
def log_of_zero() -> Program:
    """A table alone, one column logarithmic, log(0) in nine rows."""
    x, y, xv, yv = flowers()
    x[:, 5] = x[:, 5].abs()
    x[:9, 5] = 0
    xv[:, 5] = xv[:, 5].abs()
    x[:, 5], xv[:, 5] = x[:, 5].log(), xv[:, 5].log()
    return dict(train=(x, y), valid=(xv, yv))

@faulty("bad-data")
def missing_prices() -> Program:
    """Three prices are NaN, as pandas reads an empty cell."""
    x, y, xv, yv = houses()
    y[[7, 70, 700]] = float("nan")
    return program((x, y, xv, yv), mlp(1, 8), nn.MSELoss(), close, sgd(0.01))

@faulty("split-differs")
def valid_not_normalized() -> Program:
    """Training images are normalized, validation images are from 0 to 255."""
    x, y, xv, yv = ten_digits()
    return program((normal(x), y, xv * 255, yv), optimizer=sgd(0.02))

@faulty("split-differs")
def train_not_divided() -> Program:
    """x_test is made of the wrong array and not divided. SO 59325381. hides=True"""
    x, y, xv, yv = threes_sevens()
    return binary((x, y, 255 * xv, yv))

@faulty("split-differs")
def valid_inverted() -> Program:
    """Validation images are dark on light."""
    x, y, xv, yv = pictures()
    return conv(data=(x, y, normal(1 - (0.3081 * xv + 0.1307)), yv))

@faulty("split-differs")
def valid_transposed() -> Program:
    """Validation images are transposed, as EMNIST's are: same mean, same deviation."""
    x, y, xv, yv = ten_digits()
    return program((x, y, xv.view(-1, 28, 28).transpose(1, 2).flatten(1), yv))

@faulty("split-differs")
def valid_scaled_by_itself() -> Program:
    """Loaders alone of a table: fit_transform on the validation set's own range."""
    x, y, xv, yv = flowers()
    low, high = xv.amin(0), xv.amax(0)
    return data_alone(x, y, (xv - low) / (high - low), yv)

@faulty("labels-apart")
def index_by_two_orders() -> Program:
    """__getitem__ shuffles the index of the image alone. DrexelChatbotGroup/DrexelChatbot#15."""
    class Shuffled(Pairs):
        def __init__(self, x: Tensor, y: Tensor) -> None:
            super().__init__(x, y)
            self.order = torch.randperm(len(x))

        def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
            return self.x[self.order[i]], self.y[i]

    x, y, xv, yv = ten_digits()
    return program(train=DataLoader(Shuffled(x, y), batch_size=32, shuffle=True))

@faulty("labels-apart")
def shuffled_separately() -> Program:
    """Images and labels are shuffled by two permutations; loaders alone."""
    x, y, xv, yv = threes_sevens()
    return data_alone(x[torch.randperm(len(x))], y[torch.randperm(len(y))], xv, yv)

@faulty("labels-apart")
def labels_one_further() -> Program:
    """A csv's header counts as a row: every label belongs to the image before."""
    x, y, xv, yv = ten_digits()
    return conv(data=(normal(x).view(-1, 1, 28, 28)[:-1], y[1:], *pictures()[2:]))

@faulty("labels-apart")
def rows_dropped_in_one() -> Program:
    """Rows with missing values are dropped from the table, not from the labels."""
    x, y, xv, yv = flowers()
    kept = torch.rand(len(x)) > 0.1
    x = x[kept]
    return program((x, y[:len(x)], xv, yv), mlp(3, 12), optimizer=sgd(0.01))

@faulty("labels-apart")
def mixup_of_images_only() -> Program:
    """Half and half of two images with the label of the wrong one. xudonmao/VMT#1."""
    p = program()
    usual = p["step"]

    def step(xb: Tensor, yb: Tensor) -> None:
        order = torch.randperm(len(xb))
        usual(0.3 * xb + 0.7 * xb[order], yb)

    return p | {"step": step}

@faulty("sorted")
def digit_after_digit() -> Program:
    """mnist() stands digit by digit, shuffle=False. Deci-AI/super-gradients#416."""
    x, y, xv, yv = ten_digits()
    return program(train=loader(*by_label(x, y), shuffle=False))

@faulty("sorted")
def threes_then_sevens() -> Program:
    """torch.cat of the 3s and the 7s, and no shuffle. choderalab/modelforge#129."""
    x, y, _, _ = data = threes_sevens()
    return binary(data, train=loader(*by_label(x, y), shuffle=False))

@faulty("sorted")
def batches_shuffled_not_rows() -> Program:
    """The list of batches is shuffled, each is of one class; a loader alone."""
    x, y, _, _ = ten_digits()
    x, y = by_label(x, y)
    chunks = [(x[i:i + 32], y[i:i + 32]) for i in range(0, len(x), 32)]
    return dict(train=DataLoader(chunks, batch_size=None, shuffle=True))

@faulty("leak")
def valid_from_train() -> Program:
    """valid is drawn from train. openai/parameter-golf#2127. hides=True"""
    x, y, _, _ = ten_digits()
    rows = torch.randperm(len(x))[:500]
    return program((x, y, x[rows], y[rows]))

@faulty("leak")
def same_loader_twice() -> Program:
    """valid is train. js0nwu/webui#1. hides=True"""
    x, y, _, _ = pictures()
    train = loader(x, y)
    return conv(train=train, valid=train)

@faulty("leak")
def doubled_before_split() -> Program:
    """Rare classes are oversampled, then split: copies on both sides. Loaders alone."""
    x, y, _, _ = flowers()
    x, y = torch.cat([x, x[y == 2], x[y == 2]]), torch.cat([y, y[y == 2], y[y == 2]])
    order = torch.randperm(len(x))
    x, y = x[order], y[order]
    return data_alone(x[400:], y[400:], x[:400], y[:400])

@faulty("leak")
def test_set_added() -> Program:
    """The final training set is train and valid, validated on valid again. hides=True"""
    x, y, xv, yv = threes_sevens()
    return binary((torch.cat([x, xv]), torch.cat([y, yv]), xv, yv))

@faulty("augmentation")
def digits_flipped() -> Program:
    """Digits are mirrored with p=.5. chrischute/real-nvp#5."""
    return augmented(lambda image: image.flip(-1) if torch.rand(()) < 0.5 else image)

@faulty("augmentation")
def digits_turned() -> Program:
    """Digits are turned by any multiple of 90 degrees: a 6 is a 9."""
    return augmented(lambda image: image.rot90(int(torch.randint(4, ())), (-2, -1)))

@faulty("augmentation")
def erased_whole() -> Program:
    """Random erasing takes 24 by 24 of 28 by 28 pixels."""
    def erase(image: Tensor) -> Tensor:
        top, left = torch.randint(0, 5, (2,)).tolist()
        image = image.clone()
        image[:, top:top + 24, left:left + 24] = image.min()
        return image

    return augmented(erase)

@faulty("augmentation")
def noise_drowns_table() -> Program:
    """Noise of deviation 10 on a standardized table; a Dataset alone."""
    x, y, xv, yv = flowers()
    return dict(train=Pairs(x, y, lambda row: row + 10 * torch.randn_like(row)),
                valid=Pairs(xv, yv))

@faulty("imbalance")
def three_per_cent() -> Program:
    """97% are 7s: .97 without a look at the image. F 90655. hides=True"""
    x, y, xv, yv = threes_sevens()
    return binary((*rare(x, y, 1, 22), *rare(xv, yv, 1, 7)), optimizer=sgd(0.01))

@faulty("imbalance")
def fraud() -> Program:
    """One in a hundred is a fraud; data alone."""
    x, y, xv, yv = houses()
    limit = y.quantile(0.99)
    return data_alone(x, (y > limit).float(), xv, (yv > limit).float())

@faulty("imbalance")
def mostly_zeros() -> Program:
    """Nineteen of twenty images are zeros, one of another digit. hides=True"""
    x, y, xv, yv = more_digits()
    def drawn(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.cat([(y == 0).nonzero(), (y != 0).nonzero()[: int((y == 0).sum()) // 19]])
        return x[rows.flatten()], y[rows.flatten()]

    return program((*drawn(x, y), *drawn(xv, yv)), optimizer=sgd(0.01))
