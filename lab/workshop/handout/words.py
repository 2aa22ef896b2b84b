"""This room is what a handout says besides its chapters, in English and Korean."""

from __future__ import annotations

from lab.drill.words import Said

WORDS = {
    "title": Said("A highly available Kubernetes cluster", "고가용성 쿠버네티스 클러스터"),
    "handout": Said("Workshop handout", "실습 교재"),
    "student": Said("for students", "수강생용"),
    "instructor_edition": Said("instructor's edition", "강사용"),
    "lab": Said("Lab", "랩"),
    "seat": Said("Seat", "좌석"),
    "made": Said("Made on", "만든 날"),
    "kubernetes": Said("Kubernetes", "쿠버네티스"),
    "api": Said("API", "API"),
    "no_lab": Said(
        "This lab was not up when the handout was made: names, addresses and versions are lab.yaml's.",
        "이 교재를 만들 때 랩은 아직 기동되지 않은 상태였습니다. 이름, 주소, 버전은 lab.yaml에 적힌 값입니다.",
    ),
    "seat_note": Said(
        "The file lab.yaml that came with this handout is your seat's lab. "
        "Put it in the place of the checkout's own lab.yaml before you begin.",
        "이 교재와 함께 받은 lab.yaml이 이 좌석의 랩입니다. "
        "시작하기 전에 체크아웃의 lab.yaml을 이 파일로 바꾸십시오.",
    ),
    "contents": Said("Contents", "차례"),
    "chapter": Said("Chapter {}", "{}장"),
    "minutes": Said("{} min", "{}분"),
    "previous": Said("Previous", "이전"),
    "next": Said("Next", "다음"),
    "top": Said("Contents", "차례로"),
    "ways": Said("Two ways through", "두 가지 진행 방식"),
    "ways_note": Said(
        "Watch: the kit brings the lab up, and you look at it. "
        "By hand: the kit stops early, and you do the rest.",
        "살펴보기: 키트가 랩을 모두 구성하고, 여러분은 결과를 살펴봅니다. "
        "직접 하기: 키트가 초반에 멈추고, 나머지를 직접 구성합니다.",
    ),
    "watch": Said("Watch", "살펴보기"),
    "hand": Said("By hand", "직접 하기"),
    "note": Said("Note", "참고"),
    "question": Said("Question", "질문"),
    "answer": Said("Answer", "정답"),
    "instructor": Said("For the instructor", "강사용"),
    "copy": Said("Copy", "복사"),
    "copied": Said("Copied", "복사됨"),
    "select": Said("Press Ctrl+C", "Ctrl+C로 복사"),
    "host": Said("this host", "호스트"),
    "on_host": Said("in the kit's folder", "체크아웃 디렉터리에서"),
    "as_root": Said("as root", "root로"),
    "then": Said("then", "다음"),
    "check": Said("Check yourself", "스스로 확인하기"),
    "check_note": Said("Task {}: what this chapter leaves behind", "과제 {}: 이 장을 마친 상태인지 확인합니다"),
    "timing": Said("Timing", "시간 배분"),
    "number": Said("No.", "번호"),
    "about": Said("Chapter", "장"),
    "begins": Said("from", "시작"),
    "takes": Said("takes", "소요"),
    "sum": Said("In all", "합계"),
    "sheet": Said("All tasks", "전체 과제"),
    "task": Said("Task", "과제"),
    "asks": Said("Done when", "완료 조건"),
    "hints": Said("Hints, one more each time it is asked", "힌트(확인할 때마다 하나씩 더 보임)"),
    "sheet_note": Said(
        "A student's progress over all tasks; with --json for a program that collects it from many.",
        "수강생의 전체 진행 상황입니다. 여러 명의 결과를 모을 때는 --json을 붙입니다.",
    ),
    "picture": Said("The lab's machines and how they reach one another", "랩의 머신과 연결 구조"),
    "control_planes": Said("control planes", "컨트롤 플레인"),
    "workers": Said("workers", "워커 노드"),
    "balancer": Said("load balancer", "로드 밸런서"),
    "members": Said("etcd: quorum {} of {}", "etcd: {1}개 중 {0}개가 쿼럼"),
    "through": Said("kubelets, through the load balancer", "kubelet도 로드 밸런서를 거침"),
    "pods": Said("pods", "파드"),
    "services": Said("services", "서비스"),
    "machines_network": Said("machines", "머신"),
    "class": Said("Class", "수업"),
    "seats": Said("Seats", "좌석 목록"),
    "name": Said("Name", "이름"),
    "subnet": Said("Subnet", "서브넷"),
    "files": Said("Files", "파일"),
}


def told(said: Said, language: str) -> str:
    """Return one of a text's two languages."""
    return said.ko if language == "ko" else said.en


def word(language: str, name: str, *values: object) -> str:
    """Return one of WORDS in a language, with its values."""
    return told(WORDS[name], language).format(*values)
