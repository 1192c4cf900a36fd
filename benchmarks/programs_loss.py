"""Planted faults of the loss, and of the metric."""

import torch
import torch.nn.functional as F
from programs_base import (
    accuracy, adam, binary, binary_accuracy, by_label, close, cnn, conv, faulty, houses, loader,
    mlp, Net, parts, program, Program, sgd, ten_digits, text, threes_sevens, Words,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

# ---- Faults of the loss.


@faulty("not-finite", alone="loss")
def log_of_softmax(scores: Tensor, targets: Tensor) -> Tensor:
    """log(softmax): -inf from a difference of 104 on. SO 33712178, tensorflow/models#181."""
    return -torch.log(torch.softmax(scores, 1))[range(len(targets)), targets].mean()

@faulty("not-finite", alone="loss")
def exp_over_sum(scores: Tensor, targets: Tensor) -> Tensor:
    """exp overflows from 89 on. zackchase/mxnet-the-straight-dope#3."""
    exps = scores.exp()
    probabilities = exps / exps.sum(1, keepdim=True)
    return -probabilities.gather(1, targets.view(-1, 1)).log().mean()

@faulty("not-finite", alone="loss")
def log_of_sigmoid(scores: Tensor, targets: Tensor) -> Tensor:
    """BCE by the formula of the textbook: log(1 - sigmoid(17)) is minus infinity."""
    p = torch.sigmoid(scores)
    return -(targets * torch.log(p) + (1 - targets) * torch.log(1 - p)).mean()

@faulty("not-finite", alone="loss")
def where_both_branches(scores: Tensor, targets: Tensor) -> Tensor:
    """softplus by torch.where: the value is right, the slope is 0 * inf."""
    signed = torch.where(targets == 1, -scores, scores)
    return torch.where(signed > 30, signed, torch.log(1 + torch.exp(signed))).mean()

@faulty("not-finite")
def root_of_error() -> Program:
    """sqrt of squared errors: its slope at an exact answer is 0 / 0. hides=True"""
    distance = lambda predicted, price: ((predicted - price) ** 2).sqrt().mean()
    return program(houses(), mlp(1, 8), distance, close, sgd(0.01))

@faulty("not-finite")
def log_softmax_by_hand() -> Program:
    """log(softmax) in the model, then NLL: infinite on a confident mistake. hides=True"""
    class LogProbs(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return torch.log(F.softmax(super().forward(x), dim=1))

    return program(model=LogProbs(*mlp()), loss=nn.NLLLoss())

@faulty("softmax-twice")
def softmax_in_forward() -> Program:
    """Softmax is the model's last layer, then cross entropy. F 52862: accuracy never moves."""
    return program(model=nn.Sequential(*mlp(), nn.Softmax(dim=1)), optimizer=sgd(0.01))

@faulty("softmax-twice")
def softmax_in_convnet() -> Program:
    """A convnet whose forward returns F.softmax. ariecattan/SciCo#2."""
    class Probabilities(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(super().forward(x), dim=1)

    return conv(Probabilities(*cnn()))

@faulty("softmax-twice")
def softmax_of_topics() -> Program:
    """Topics of sentences, softmax and cross entropy. Lightning-Universe/lightning-bolts#654."""
    class Softmaxed(Words):
        def forward(self, ids: Tensor) -> Tensor:
            return torch.softmax(super().forward(ids), -1)

    return text(Softmaxed(), optimizer=sgd(0.1))

@faulty("softmax-twice")
def sigmoid_then_with_logits() -> Program:
    """Sigmoid, then BCEWithLogitsLoss. F 27298, yudi-mars/daisyRec#15. hides=True"""
    return binary(model=nn.Sequential(*mlp(1), nn.Sigmoid()),
                  metric=lambda p, y: ((p > 0.5) == y).float().mean())

@faulty("softmax-twice", alone="loss")
def softmax_then_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """Softmax in the loss, and cross entropy of that."""
    return F.cross_entropy(F.softmax(scores, dim=1), targets)

@faulty("nll-input")
def nll_of_scores() -> Program:
    """NLLLoss of raw scores: no floor, it goes to minus infinity."""
    return program(loss=nn.NLLLoss(), optimizer=sgd(0.01))

@faulty("nll-input")
def nll_of_softmax() -> Program:
    """NLLLoss of softmax: the log is missing. F 55904."""
    return program(model=nn.Sequential(*mlp(), nn.Softmax(dim=1)), loss=nn.NLLLoss(),
                   optimizer=sgd(0.01))

@faulty("nll-input")
def nll_of_exp() -> Program:
    """The model returns log-probabilities, the loss takes exp of them before NLL. F 55904."""
    return conv(nn.Sequential(*cnn(), nn.LogSoftmax(dim=1)), optimizer=sgd(0.01),
                loss=lambda out, y: F.nll_loss(torch.exp(out), y))

@faulty("nll-input", alone="loss")
def kl_of_probabilities(scores: Tensor, targets: Tensor) -> Tensor:
    """kl_div wants log-probabilities first and gets probabilities."""
    one_hot = F.one_hot(targets, scores.shape[1]).float()
    return F.kl_div(F.softmax(scores, dim=1), one_hot, reduction="batchmean")

@faulty("loss-mixes-rows", alone="loss")
def softmax_over_batch(scores: Tensor, targets: Tensor) -> Tensor:
    """F.softmax(dim=0). F 77250, Lackel/DPN#1."""
    return F.nll_loss(torch.log_softmax(scores, dim=0), targets)

@faulty("loss-mixes-rows")
def softmax_without_dim_of_rows() -> Program:
    """log_softmax(dim=0) in the loss. MicrosoftDocs/pytorchfundamentals#4. hides=True"""
    return program(loss=lambda out, y: F.nll_loss(F.log_softmax(out, 0), y))

@faulty("loss-mixes-rows")
def scores_standardized_in_loss() -> Program:
    """The loss takes the batch's mean and deviation out of the scores. hides=True"""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        scores = (scores - scores.mean(0)) / (scores.std(0) + 1e-6)
        return F.cross_entropy(scores, targets)

    return program(loss=loss)

@faulty("loss-mixes-rows", alone="loss")
def sum_over_everything(scores: Tensor, targets: Tensor) -> Tensor:
    """Softmax by hand, the sum taken over the whole table: keepdim and dim left out."""
    exps = torch.exp(scores - scores.max())
    return -torch.log(exps / exps.sum() + 1e-12).gather(1, targets.view(-1, 1)).mean()

@faulty("sign", alone="loss")
def log_likelihood(scores: Tensor, targets: Tensor) -> Tensor:
    """The minus is missing. stellargraph/stellargraph#1138."""
    return torch.log_softmax(scores, 1).gather(1, targets.view(-1, 1)).mean()

@faulty("sign")
def book_loss_swapped() -> Program:
    """The book's mnist_loss with the branches of where swapped. fastai/fastbook#478."""
    def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
        predictions = predictions.sigmoid()
        return torch.where(targets == 1, predictions, 1 - predictions).mean()

    return binary(loss=mnist_loss)

@faulty("sign")
def optimizer_maximizes() -> Program:
    """maximize=True left from a policy gradient."""
    return program(optimizer=sgd(0.01, maximize=True))

@faulty("sign")
def minus_before_backward() -> Program:
    """(-loss).backward() of a loss that has its minus."""
    p = conv()
    model, loss, optimizer = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        optimizer.zero_grad()
        (-loss(model(xb), yb)).backward()
        optimizer.step()

    return p | {"step": step}

@faulty("sign")
def gradient_added() -> Program:
    """Gradient descent by hand that adds the gradient."""
    p = program()
    model, loss, _ = parts(p)

    def step(xb: Tensor, yb: Tensor) -> None:
        loss(model(xb), yb).backward()
        with torch.no_grad():
            for w in model.parameters():
                w += 0.1 * w.grad
                w.grad = None

    return {k: v for k, v in p.items() if k != "optimizer"} | {"step": step}

@faulty("dead-class")
def padding_index_is_zero() -> Program:
    """ignore_index=0, copied from a translation model: no zero is ever learned."""
    return program(loss=nn.CrossEntropyLoss(ignore_index=0))

@faulty("dead-class")
def weight_of_nine_is_zero() -> Program:
    """Class weights made by counting from 1: the last class has weight 0."""
    return conv(loss=nn.CrossEntropyLoss(weight=torch.tensor([1.0] * 9 + [0.0])))

@faulty("dead-class", alone="loss")
def only_positives(scores: Tensor, targets: Tensor) -> Tensor:
    """BCE without its second half: answering 1 always is best."""
    return -(targets * F.logsigmoid(scores)).mean()

@faulty("dead-class", alone="loss")
def where_blocks_gradient(scores: Tensor, targets: Tensor) -> Tensor:
    """torch.where with detached losses for one class. F 72570."""
    losses = F.cross_entropy(scores, targets, reduction="none")
    return torch.where(targets == 1, losses.detach(), losses).mean()

@faulty("dead-class")
def mask_of_labels() -> Program:
    """A mask `targets > 0` meant for padding drops all 7s, whose label is 0."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        mask = (targets > 0).float()
        return (F.binary_cross_entropy_with_logits(scores, targets, reduction="none") * mask).mean()

    return binary(loss=loss)

@faulty("no-gradient", alone="loss")
def loss_of_argmax(scores: Tensor, targets: Tensor) -> Tensor:
    """The share of errors, with requires_grad set so that backward runs. 47 forum posts."""
    return (scores.argmax(1) != targets).float().mean().requires_grad_()

@faulty("no-gradient", alone="loss")
def rounded_probabilities(scores: Tensor, targets: Tensor) -> Tensor:
    """MSE of rounded probabilities: the slope of round is 0 everywhere."""
    return F.mse_loss(torch.sigmoid(scores).round(), targets.to(scores.dtype))

@faulty("no-gradient")
def loss_made_anew() -> Program:
    """torch.tensor(loss.item(), requires_grad=True). queenie88/A-GCN#4."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return torch.tensor(F.cross_entropy(scores, targets).item(), requires_grad=True)

    return program(loss=loss)

@faulty("no-gradient")
def detached_features() -> Program:
    """.data between body and head: the convolutions never learn. guopengf/FL-MRCM#10."""
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Sequential(*cnn()[:-1]), nn.Linear(16 * 7 * 7, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).data)

    return conv(Detached())

@faulty("no-gradient")
def no_grad_in_forward() -> Program:
    """torch.no_grad around the embedding, left from inference."""
    class Frozen(Words):
        def forward(self, ids: Tensor) -> Tensor:
            with torch.no_grad():
                words = self.embed(ids)
            return self.head(words.mean(1))

    return text(Frozen())

@faulty("no-gradient")
def through_numpy() -> Program:
    """An activation computed in numpy: the first layer is cut off."""
    class Numpy(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.fc1(x).detach().numpy().clip(min=0)
            return self.fc2(torch.from_numpy(hidden))

    return program(model=Numpy())

@faulty("sum-for-mean", alone="loss")
def summed_picks(scores: Tensor, targets: Tensor) -> Tensor:
    """-sum of the picked log-probabilities: twice the batch, twice the step."""
    return -F.log_softmax(scores, dim=1)[range(len(targets)), targets].sum()

@faulty("sum-for-mean")
def reduction_sum() -> Program:
    """reduction="sum" with a learning rate for means."""
    return program(loss=nn.CrossEntropyLoss(reduction="sum"))

@faulty("sum-for-mean")
def squares_summed() -> Program:
    """Squared errors on one-hot, summed over batch and columns. TheDeepChecker IPS_1."""
    def loss(out: Tensor, y: Tensor) -> Tensor:
        return ((out - F.one_hot(y, 10)) ** 2).sum()

    return program(loss=loss)

@faulty("broadcast")
def book_loss_flat_labels() -> Program:
    """The book's mnist_loss, scores [N, 1], labels [N]. pytorch/pytorch#16045."""
    def mnist_loss(predictions: Tensor, targets: Tensor) -> Tensor:
        predictions = predictions.sigmoid()
        return torch.where(targets == 1, 1 - predictions, predictions).mean()

    x, y, xv, yv = threes_sevens()
    return binary((x, y.squeeze(1), xv, yv.squeeze(1)), loss=mnist_loss,
                  metric=lambda out, y: ((out.squeeze(1) > 0) == y).float().mean())

@faulty("broadcast")
def prices_flat() -> Program:
    """Predicted prices [N, 1], prices [N]: every price against every other. jsboige/CoursIA#926."""
    x, y, xv, yv = houses()
    return program((x, y.squeeze(1), xv, yv.squeeze(1)), mlp(1, 8),
                   loss=lambda out, y: ((out - y) ** 2).mean(), optimizer=sgd(0.01),
                   metric=lambda out, y: close(out.squeeze(1), y))

@faulty("broadcast")
def index_by_column() -> Program:
    """log_probs[arange(N), targets] with targets [N, 1] is N by N."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return -scores.log_softmax(1)[torch.arange(len(scores)), targets].mean()

    x, y, xv, yv = ten_digits()
    return program((x, y.unsqueeze(1), xv, yv.unsqueeze(1)), loss=loss,
                   metric=lambda out, y: accuracy(out, y.squeeze(1)))

@faulty("broadcast", alone="loss")
def every_row_every_label(scores: Tensor, targets: Tensor) -> Tensor:
    """log_probs[:, targets] is N by N: each row is pulled to all labels of the batch."""
    return -F.log_softmax(scores, dim=1)[:, targets].mean()

@faulty("broadcast")
def hinge_flat() -> Program:
    """Hinge of scores [N, 1] and labels [N] of -1 and 1. elixir-nx/axon#662."""
    x, y, xv, yv = threes_sevens()
    signs, signs_v = 2 * y.squeeze(1) - 1, 2 * yv.squeeze(1) - 1
    return binary((x, signs, xv, signs_v), loss=lambda out, y: (1 - y * out).clamp(min=0).mean(),
                  metric=lambda out, y: (out.squeeze(1).sign() == y).float().mean())

@faulty("target-form")
def digit_as_number() -> Program:
    """One column is fitted to the digit's value by MSE, and rounded."""
    return program(model=mlp(1), optimizer=sgd(0.01),
                   loss=lambda out, y: F.mse_loss(out.squeeze(1), y.float()),
                   metric=lambda out, y: (out.squeeze(1).round() == y).float().mean())

@faulty("target-form")
def hinge_of_zero_one() -> Program:
    """Hinge wants labels -1 and 1 and gets 0 and 1: a 7 costs 1 whatever its score."""
    return binary(loss=lambda out, y: (1 - y * out).clamp(min=0).mean())

@faulty("target-form")
def bce_of_plus_minus() -> Program:
    """BCEWithLogitsLoss wants 0 and 1 and gets -1 and 1: no floor."""
    x, y, xv, yv = threes_sevens()
    return binary((x, 2 * y - 1, xv, 2 * yv - 1), optimizer=adam(),
                  metric=lambda out, y: (out.sign() == y).float().mean())

@faulty("target-form", alone="loss")
def labels_from_one(scores: Tensor, targets: Tensor) -> Tensor:
    """targets - 1, from a data set that counts from 1; the clamp hides the error that told."""
    return F.cross_entropy(scores, (targets - 1).clamp(min=0))

@faulty("target-form")
def gather_of_one_hot() -> Program:
    """gather(1, one_hot) picks columns 0 and 1, whatever the label."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return -F.log_softmax(scores, 1).gather(1, targets).mean()

    x, y, xv, yv = ten_digits()
    return program((x, F.one_hot(y), xv, F.one_hot(yv)), loss=loss,
                   metric=lambda out, y: accuracy(out, y.argmax(1)))

@faulty("target-form", alone="loss")
def arguments_swapped(scores: Tensor, targets: Tensor) -> Tensor:
    """cross_entropy(targets, scores): the scores are read as the soft targets. F 117545."""
    return F.cross_entropy(F.one_hot(targets, scores.shape[1]).to(scores.dtype), scores)

@faulty("hides-nan", alone="loss")
def mean_of_the_rest(scores: Tensor, targets: Tensor) -> Tensor:
    """nanmean over the examples: half of the scores may be NaN."""
    return torch.nanmean(F.cross_entropy(scores, targets, reduction="none"))

@faulty("hides-nan", alone="loss")
def nan_to_zero(scores: Tensor, targets: Tensor) -> Tensor:
    """nan_to_num "for stability": a model that returns NaN has the loss ln C."""
    return F.cross_entropy(torch.nan_to_num(scores), targets)

@faulty("hides-nan")
def finite_losses_only() -> Program:
    """Losses that are not finite are filtered out. rkishore's blog. hides=True"""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        losses = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        return losses[torch.isfinite(losses)].sum() / len(scores)

    return binary(loss=loss)

@faulty("bounded-scores")
def relu_before_softmax() -> Program:
    """ReLU after the last layer, too. pytorch/examples#117."""
    return program(model=nn.Sequential(*mlp(), nn.ReLU()), optimizer=sgd(0.01))

@faulty("bounded-scores")
def relu_last_of_one_column() -> Program:
    """ReLU before BCEWithLogitsLoss: no probability below a half. hides=True"""
    return binary(model=nn.Sequential(*mlp(1), nn.ReLU()))

@faulty("bounded-scores")
def tanh_last() -> Program:
    """tanh after the last layer of a convnet: the loss cannot fall below .8. hides=True"""
    return conv(nn.Sequential(*cnn(), nn.Tanh()))

@faulty("bounded-scores")
def sigmoid_then_cross_entropy() -> Program:
    """A sigmoid on each of ten columns, then cross entropy. Floor 1.46."""
    return program(model=nn.Sequential(*mlp(), nn.Sigmoid()), optimizer=sgd(0.01))

@faulty("bounded-scores")
def cosines_as_scores() -> Program:
    """Cosines as scores of cross entropy, without a scale. hides=True"""
    class Cosines(Net):
        def forward(self, x: Tensor) -> Tensor:
            hidden = F.normalize(F.relu(self.fc1(x)))
            return hidden @ F.normalize(self.fc2.weight).T

    return program(model=Cosines())

@faulty("bounded-scores", alone="loss")
def clipped_scores(scores: Tensor, targets: Tensor) -> Tensor:
    """Scores clipped to +-1 "for stability"."""
    return F.cross_entropy(scores.clamp(-1, 1), targets)

@faulty("weak-pull")
def capped_loss() -> Program:
    """Each example's loss is cut off at 2 against outliers: at ln 10 nothing is learned."""
    def loss(scores: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(scores, targets, reduction="none").clamp(max=2).mean()

    return program(loss=loss)

@faulty("weak-pull", alone="loss")
def clamped_probability(scores: Tensor, targets: Tensor) -> Tensor:
    """log of a clamped probability: finite, but no slope where the answer is quite wrong."""
    p = torch.softmax(scores, 1).clamp(min=1e-3)
    return -torch.log(p.gather(1, targets.view(-1, 1))).mean()

@faulty("weak-pull", alone="loss")
def focal_backwards(scores: Tensor, targets: Tensor) -> Tensor:
    """Focal loss with p in place of 1 - p: the hardest examples count least."""
    log_p = F.log_softmax(scores, 1).gather(1, targets.view(-1, 1))
    return -(log_p.exp() ** 2 * log_p).mean()

@faulty("weak-pull", alone="loss")
def clipped_hinge(scores: Tensor, targets: Tensor) -> Tensor:
    """Hinge cut off at 1, targets 0 and 1: no slope for an answer on the wrong side."""
    return (1 - (2 * targets - 1) * scores).clamp(0, 1).mean()

# ---- Faults of the metric.


@faulty("metric-wrong", alone="metric")
def argmax_over_batch(scores: Tensor, targets: Tensor) -> Tensor:
    """argmax(0). Zasder3/train-CLIP#6."""
    best = scores.argmax(0)
    return (best[: len(targets)] == targets[: len(best)]).float().mean()

@faulty("metric-wrong", alone="metric")
def right_answers_summed(scores: Tensor, targets: Tensor) -> Tensor:
    """The count of right answers, called accuracy."""
    return (scores.argmax(1) == targets).sum()

@faulty("metric-wrong", alone="metric")
def half_on_logits(scores: Tensor, targets: Tensor) -> Tensor:
    """A threshold of .5 on scores that are not probabilities."""
    return ((scores > 0.5).float() == targets).float().mean()

@faulty("metric-wrong")
def metric_of_flat_targets() -> Program:
    """Answers [N, 1] compared with labels [N]. traja-team/traja#57."""
    x, y, xv, yv = threes_sevens()
    return binary((x, y.squeeze(1), xv, yv.squeeze(1)), metric=binary_accuracy,
                  loss=lambda out, y: F.binary_cross_entropy_with_logits(out.squeeze(1), y))

@faulty("metric-wrong", alone="metric")
def error_as_accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """!= for ==."""
    return (scores.argmax(dim=1) != targets).float().mean()

@faulty("metric-wrong", alone="metric")
def positives_found(scores: Tensor, targets: Tensor) -> Tensor:
    """Counts the positives alone, over all examples. keras-team/keras#2736."""
    return (((scores > 0) & (targets == 1)).sum()) / len(targets)

@faulty("metric-wrong")
def rounded_scores() -> Program:
    """round() of scores, as if they were probabilities: 2.6 rounds to 3."""
    return binary(metric=lambda out, y: (out.round() == y).float().mean())

@faulty("metric-wrong")
def argmin_as_answer() -> Program:
    """The lowest score is taken, as if a distance. lisa-lab/DeepLearningTutorials#15."""
    return conv(metric=lambda out, y: (out.argmin(1) == y).float().mean())

@faulty("metric-wrong", alone="metric")
def softmax_over_batch_then_argmax(scores: Tensor, targets: Tensor) -> Tensor:
    """Probabilities by softmax(0): a column's scores compete over the batch."""
    return (torch.softmax(scores, 0).argmax(1) == targets).float().mean()

def short_last(x: Tensor, y: Tensor) -> DataLoader:
    """Batches by label of which the last holds two examples of 500."""
    return loader(*by_label(x, y), 166, shuffle=False)

@faulty("metric-batches")
def mean_of_batch_means() -> Program:
    """Mean of batch means: the last 2 of 500 count as 166. mlcommons/training#89. hides=True"""
    x, y, xv, yv = data = ten_digits()
    p = program(data, valid=short_last(xv, yv))
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            means = [accuracy(model(xb), yb).item() for xb, yb in valid]
        return sum(means) / len(means)

    return p | {"validate": validate}

@faulty("metric-batches")
def last_batch_only() -> Program:
    """The loop ends, the accuracy of its last batch is returned."""
    x, y, xv, yv = data = ten_digits()
    p = program(data, valid=short_last(xv, yv))
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        with torch.no_grad():
            for xb, yb in valid:
                right = (model(xb).argmax(1) == yb).float().mean().item()
        return right

    return p | {"validate": validate}

@faulty("metric-batches")
def divided_by_full_batches() -> Program:
    """Divided by batches times batch size. udacity/deep-learning-v2-pytorch#74."""
    x, y, xv, yv = data = threes_sevens()
    p = binary(data, valid=short_last(xv, yv))
    model, valid = p["model"], p["valid"]

    def validate() -> float:
        model.eval()
        right = 0
        with torch.no_grad():
            for xb, yb in valid:
                right += ((model(xb) > 0) == yb).sum().item()
        return right / (len(valid) * 166)

    return p | {"validate": validate}

@faulty("metric-hides-nan", alone="metric")
def accuracy_of_zeros_for_nan(scores: Tensor, targets: Tensor) -> Tensor:
    """nan_to_num, then argmax: a dead model still has .1."""
    return (torch.nan_to_num(scores).argmax(1) == targets).float().mean()

@faulty("metric-hides-nan", alone="metric")
def accuracy_of_the_finite(scores: Tensor, targets: Tensor) -> Tensor:
    """NaN rows are left out: one answer of a thousand may make 1.0."""
    fine = torch.isfinite(scores).all(1)
    return (scores[fine].argmax(1) == targets[fine]).float().mean()

@faulty("metric-hides-nan")
def r2_of_the_finite() -> Program:
    """Explained variance by nanmean: predictions that are NaN do not count. hides=True"""
    def metric(predicted: Tensor, price: Tensor) -> Tensor:
        return 1 - torch.nanmean((predicted - price) ** 2) / torch.mean(price**2)

    return program(houses(), mlp(1, 8), nn.MSELoss(), metric, sgd(0.01))
