"""Chapters for tests: a folder with two, in both languages, that use every feature of chapters."""

from __future__ import annotations

from pathlib import Path

from lab import config
from lab.model import Lab
from lab.workshop.handout import chapters
from lab.workshop.handout.chapters import Chapter
from lab.workshop.handout.context import context
from lab.workshop.handout.page import Cover, page
from lab.workshop.handout.prose import Edition

FIRST = """---
title: {title}
minutes: 20
task: 1
---
{words}

{{{{ topology }}}}

| machine | address |
| --- | ---: |
{{% for node in lab.nodes %}}
| {{{{ node.name }}}} | {{{{ node.address }}}} |
{{% endfor %}}

::: watch
```sh on=host
./inv up
```
:::

::: hand
```sh on=host
./inv up --until load-balancer
```

::: note
{words}
:::

```sh on={{{{ first.name }}}}
umask 077; printf 'a/%s\\n' "$(kubeadm token generate)" > /root/secrets.sed
sed -f /root/secrets.sed /opt/ha-lab/kubeadm-init.yaml > /root/kubeadm-init.yaml # wider than a phone
```
:::

## {words}

::: question
{words} <script>alert(1)</script>
:::

::: answer
ANSWER
:::

::: instructor
TROUBLE

```sh on=host
./inv status
```
:::

```sh on=host
./inv task 1
```
"""

SECOND = """---
title: {title}
minutes: 45
task: 2
---
{words} Kubernetes {{{{ versions.kubernetes }}}}, `./inv verify`, [1](#chapter-1).

```haproxy
{{{{ haproxy_cfg }}}}
```

```yaml
{{{{ kubeadm_init }}}}
{{{{ kubeadm_join_control_plane }}}}
```

```text
NAME  STATUS
```

```sh on=host
./inv task 2
```
"""

WORDS = {
    "en": ("What the machines are", "The load balancer has one address."),
    "ko": ("머신의 역할", "로드 밸런서는 하나의 주소로 요청을 받아 컨트롤 플레인에 전달합니다."),
}


def folder(root: Path) -> Path:
    """Write the chapters below a folder, and return that."""
    for language, (title, words) in WORDS.items():
        (root / language).mkdir(parents=True)
        for name, text in (("01-machines.md", FIRST), ("02-files.md", SECOND)):
            (root / language / name).write_text(text.format(title=title, words=words), encoding="utf-8")
    return root


def read(root: Path, language: str = "en", lab: Lab | None = None, lab_file: str = "") -> tuple[Chapter, ...]:
    """The chapters of a folder, for a lab."""
    values = context(lab or config.default(), language)
    return chapters.read(language, values, root, lab_file=lab_file)


def made(root: Path, language: str = "en", edition: Edition = "student", lab_file: str = "") -> str:
    """A complete handout made from a folder's chapters."""
    lab = config.default()
    cover = Cover(made="2025-11-24", up=False, lab_file=lab_file)
    return page(lab, language, edition, read(root, language, lab, lab_file), cover)
