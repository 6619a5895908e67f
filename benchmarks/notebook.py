"""The loop that a notebook has, as the baseline: DataLoader, ToTensor, sigmoid and BCE, unfused Adam, `loss.item()`."""

import time
from collections.abc import Iterator

import torch
from loops import BATCH, Loop
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms


class NotebookImages(TorchDataset[tuple[Tensor, int]]):
    """As torchvision's MNIST: one uint8 tensor, and for each sample a PIL image that `ToTensor` decodes."""

    def __init__(self, images_ND: Tensor) -> None:
        self.images = (images_ND * 255).round().to(torch.uint8).reshape(-1, 28, 28)
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index].numpy())), 0


class NotebookVAE(nn.Module):
    """Separate layers, ReLU on the logits, sigmoid on the pixels."""

    def __init__(self, n_latents: int, n_categories: int) -> None:
        super().__init__()
        self.shape = (n_latents, n_categories)
        code = n_latents * n_categories
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 512), nn.Linear(512, 256), nn.Linear(256, code)
        self.fc4, self.fc5, self.fc6 = nn.Linear(code, 256), nn.Linear(256, 512), nn.Linear(512, 784)

    def forward(self, x: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        logits = F.relu(self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))).view(-1, *self.shape)
        uniform = torch.rand_like(logits)
        gumbel = -torch.log(-torch.log(uniform + 1e-20) + 1e-20)
        z = F.softmax((logits + gumbel) / tau, dim=-1).flatten(1)
        return torch.sigmoid(self.fc6(F.relu(self.fc5(F.relu(self.fc4(z)))))), F.softmax(logits, dim=-1)


def notebook_loop(images_ND: Tensor, n_latents: int, n_categories: int) -> Loop:
    """Return a Gumbel-Softmax code at tau 1, one sample."""
    model = NotebookVAE(n_latents, n_categories)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(NotebookImages(images_ND), batch_size=BATCH, shuffle=True, drop_last=True)

    def batches() -> Iterator[Tensor]:
        while True:
            for x, _ in loader:
                yield x

    stream = batches()

    def run(n_steps: int) -> float:
        begun, total = time.perf_counter(), 0.0
        for _ in range(n_steps):
            x = next(stream).view(-1, 784)
            optimizer.zero_grad()
            pixels, probs = model(x, 1.0)
            bce = F.binary_cross_entropy(pixels, x, reduction="sum") / len(x)
            kl = torch.sum(probs * torch.log(probs * n_categories + 1e-20), dim=-1).sum(dim=-1).mean()
            loss = bce + kl
            loss.backward()
            total += loss.item()
            optimizer.step()
        return time.perf_counter() - begun

    return run
