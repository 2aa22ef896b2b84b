"""This room tells of each drill in English and Korean: what is done, what to watch for, and why."""

from __future__ import annotations

from typing import NamedTuple

from lab.drill.words import Said


class Story(NamedTuple):
    """A drill as a reader is told of it."""

    title: Said
    text: Said


STORIES = {
    "kill-control-plane": Story(
        Said("A control plane is killed", "컨트롤 플레인 노드 강제 종료"),
        Said(
            "One control-plane machine dies without a word, as if its plug were pulled. Two etcd members are "
            "still a quorum: if the leader died with the machine, writes wait for an election and then go on. "
            "HAProxy's health checks take the dead server out; until then a connection that it does not "
            "accept is handed to another one, so what may fail is what was in flight on the dead machine.",
            "컨트롤 플레인 머신 한 대를 전원을 뽑듯이 예고 없이 종료합니다. 남은 etcd 멤버 두 대로 쿼럼이 "
            "유지되므로, 죽은 머신에 etcd 리더가 있었다면 새 리더가 선출될 때까지만 쓰기가 기다렸다가 "
            "이어집니다. HAProxy는 헬스 체크로 죽은 서버를 제외하고, 그 전까지는 연결되지 않는 요청을 다른 "
            "서버로 넘깁니다. 따라서 실패할 수 있는 것은 종료 순간 그 머신에서 처리 중이던 요청입니다.",
        ),
    ),
    "stop-api-server": Story(
        Said("An API server is stopped", "API 서버 정지"),
        Said(
            "The API server of one control plane is stopped; the machine and its etcd member go on. Its port "
            "is closed, so the load balancer hears a refusal at once and tries the next server. This is the "
            "mildest loss of an API server: watches that hung on it are opened anew elsewhere and go on from "
            "the version that they had reached, without missing an event.",
            "컨트롤 플레인 한 대의 API 서버만 정지합니다. 머신과 etcd 멤버는 그대로 동작합니다. 포트가 닫혀 "
            "연결이 즉시 거부되므로 로드 밸런서는 곧바로 다음 서버로 넘어갑니다. API 서버가 빠지는 경우 "
            "가운데 가장 가벼운 장애입니다. 끊어진 watch는 다른 서버에 다시 연결되어 마지막으로 받은 "
            "resourceVersion부터 이어지므로 이벤트가 누락되지 않아야 합니다.",
        ),
    ),
    "freeze-api-server": Story(
        Said("An API server freezes", "API 서버 멈춤(SIGSTOP)"),
        Said(
            "The process of one API server is halted with SIGSTOP. The kernel still accepts connections for "
            "it, and nobody ever answers: trying another server on a refused connection does not help here. "
            "Only the HTTPS check on /healthz sees it, once it has run into its time limit often enough; then "
            "HAProxy cuts the sessions that hang on the frozen server, and clients connect again elsewhere.",
            "API 서버 프로세스 하나를 SIGSTOP으로 멈춥니다. 커널이 TCP 연결은 계속 받아 주지만 응답은 오지 "
            "않으므로, 연결 실패 시 다른 서버로 넘기는 방식으로는 막을 수 없습니다. /healthz에 대한 HTTPS "
            "헬스 체크가 연달아 시간 초과되어야 비로소 감지되며, 그때 HAProxy가 멈춘 서버에 묶여 있던 세션을 "
            "끊어 클라이언트가 다른 서버로 다시 연결하게 합니다.",
        ),
    ),
    "kill-etcd-leader": Story(
        Said("The etcd leader is killed", "etcd 리더 강제 종료"),
        Said(
            "The etcd member that leads is killed. The other two notice that its heartbeats have stopped, and "
            "elect a leader after about the election timeout of one second; writes wait meanwhile. What was "
            "acknowledged stands on the disks of a majority and can't be lost. The API server beside the dead "
            "member has lost its storage, fails its health check and leaves the load balancer until the "
            "kubelet has etcd running again.",
            "etcd 리더 멤버를 강제 종료합니다. 나머지 두 멤버는 하트비트가 끊긴 것을 알아채고 약 1초의 선출 "
            "타임아웃이 지나면 새 리더를 선출하며, 그동안 쓰기는 대기합니다. 응답이 나간 쓰기는 이미 과반수 "
            "멤버의 디스크에 기록되어 있으므로 유실되지 않습니다. 죽은 멤버와 같은 머신의 API 서버는 저장소를 "
            "잃어 헬스 체크에 실패하고, kubelet이 etcd를 다시 띄울 때까지 로드 밸런서에서 제외됩니다.",
        ),
    ),
    "slow-etcd-disk": Story(
        Said("The disk under etcd becomes slow", "etcd 디스크 지연"),
        Said(
            "One etcd member waits long for its disk. A slow follower is outvoted: the leader and the other "
            "follower are a majority. A slow leader holds up every write, and may lose its office when its "
            "heartbeats come late. Watch the slow requests and the leader changes rather than failures: "
            "nothing acknowledged may be lost, for etcd answers only once a majority has written.",
            "etcd 멤버 하나의 디스크 쓰기를 느리게 만듭니다. 느린 멤버가 팔로워라면 리더와 다른 팔로워가 "
            "과반수를 이루므로 영향이 작습니다. 리더가 느리면 모든 쓰기가 지연되고, 하트비트까지 늦어지면 "
            "리더가 바뀔 수 있습니다. 실패보다는 지연된 요청과 리더 변경 횟수를 보십시오. etcd는 과반수가 "
            "디스크에 기록한 뒤에만 응답하므로, 응답받은 쓰기는 유실되지 않아야 합니다.",
        ),
    ),
    "partition-control-plane": Story(
        Said("A control plane is cut off", "컨트롤 플레인 노드 네트워크 단절"),
        Said(
            "All packets to and from one control plane are dropped. Nobody is told: connections to it run "
            "into time limits instead of refusals. The two others hold the quorum and go on. The one that is "
            "cut off can acknowledge nothing alone, so there is no second truth; when the network is back it "
            "catches up. Its node turns NotReady only if it is away for longer than the grace period of 50 s.",
            "컨트롤 플레인 한 대로 오가는 모든 패킷을 버립니다. 연결이 거부되는 것이 아니라 응답이 없으므로 "
            "상대는 시간 초과로만 알 수 있습니다. 남은 두 대가 쿼럼을 유지하며 계속 동작합니다. 고립된 멤버는 "
            "혼자서 어떤 쓰기도 확정할 수 없어 스플릿 브레인이 생기지 않으며, 네트워크가 돌아오면 밀린 내용을 "
            "따라잡습니다. 단절이 node-monitor-grace-period인 50초보다 길어져야 노드가 NotReady가 됩니다.",
        ),
    ),
    "partition-from-peers": Story(
        Said("A control plane loses its peers", "컨트롤 플레인 간 네트워크 단절"),
        Said(
            "One control plane can't reach the other two, but the load balancer and the workers still reach "
            "it. Its API server looks alive: it accepts connections, and behind it stands an etcd member "
            "without a quorum. /healthz asks etcd as well, so the health check fails and HAProxy takes the "
            "server out. A check that only opens the port would send it every third request.",
            "컨트롤 플레인 한 대가 다른 두 대와는 통신하지 못하지만 로드 밸런서와 워커 노드에서는 여전히 닿는 "
            "상태를 만듭니다. API 서버는 연결을 받으므로 살아 있는 것처럼 보이지만, 그 뒤의 etcd 멤버는 "
            "쿼럼을 잃었습니다. /healthz는 etcd까지 확인하므로 헬스 체크가 실패하고 HAProxy가 이 서버를 "
            "제외합니다. 포트가 열려 있는지만 검사했다면 요청의 3분의 1이 계속 이 서버로 갔을 것입니다.",
        ),
    ),
    "lose-quorum": Story(
        Said("etcd loses its quorum", "etcd 쿼럼 상실"),
        Said(
            "Two of three control planes go. One etcd member is no majority: it refuses writes, its API "
            "server fails the health check, and the API is gone on purpose, because a wrong answer would be "
            "worse. Pods keep running and the Service keeps answering, since neither asks the API. When a "
            "second member is back, the cluster goes on by itself, with every acknowledged write.",
            "컨트롤 플레인 세 대 중 두 대를 내립니다. etcd 멤버 하나로는 과반수가 되지 않아 쓰기를 거부하고, "
            "그 API 서버도 헬스 체크에 실패합니다. 잘못된 답을 주느니 API를 멈추는 것이 설계된 동작입니다. "
            "이미 떠 있는 파드와 서비스는 API에 의존하지 않으므로 계속 응답해야 합니다. 멤버 하나가 돌아와 "
            "쿼럼이 회복되면 응답받은 쓰기를 모두 간직한 채 클러스터가 스스로 정상화됩니다.",
        ),
    ),
    "reload-load-balancer": Story(
        Said("The load balancer is reloaded", "로드 밸런서 설정 리로드"),
        Said(
            "HAProxy is told to read its configuration again. A new process takes over the listening sockets "
            "from the old one, which serves its connections to their end. No request may fail and no watch "
            "may be cut: this is how every change of the configuration goes in, so it has to cost nothing.",
            "HAProxy에 설정을 다시 읽게 합니다. 새 프로세스가 리스닝 소켓을 넘겨받고, 이전 프로세스는 맡고 "
            "있던 연결이 끝날 때까지 처리합니다. 실패하는 요청도, 끊기는 watch도 없어야 합니다. 설정을 바꿀 "
            "때마다 거치는 과정이므로 서비스에 영향이 없어야 합니다.",
        ),
    ),
    "restart-load-balancer": Story(
        Said("The load balancer is restarted", "로드 밸런서 재시작"),
        Said(
            "HAProxy is stopped and started. Every session is cut, and for a moment new connections are "
            "refused. Clients connect again and watches go on where they were. The nodes do not mind: a "
            "kubelet may be silent for 50 s before its node turns NotReady. Compare it with the reload, which "
            "costs nothing.",
            "HAProxy를 종료했다가 다시 시작합니다. 모든 세션이 끊기고 잠깐 동안 새 연결이 거부됩니다. "
            "클라이언트가 다시 연결하면 watch는 끊긴 지점부터 이어집니다. kubelet의 보고가 50초까지는 끊겨도 "
            "노드가 NotReady가 되지 않으므로 노드에는 영향이 없어야 합니다. 영향이 없는 리로드와 비교해 "
            "보십시오.",
        ),
    ),
    "kill-load-balancer": Story(
        Said("The load balancer's machine is killed", "로드 밸런서 머신 강제 종료"),
        Said(
            "The only load balancer dies and is started again. It is the lab's single point of failure: until "
            "it is back, nobody reaches the API at this address. Controllers and schedulers go on, since they "
            "ask the API server of their own machine; so do pods and the Service. If the outage lasts longer "
            "than 50 s, nodes turn NotReady, because kubelets report through the load balancer too.",
            "한 대뿐인 로드 밸런서를 강제 종료한 뒤 다시 켭니다. 이 랩의 단일 장애점(SPOF)이므로 복구될 "
            "때까지는 이 주소로 API에 접근할 수 없습니다. 컨트롤러 매니저와 스케줄러는 자기 머신의 API 서버를 "
            "쓰므로 계속 동작하고, 파드와 서비스도 마찬가지입니다. 다만 kubelet도 로드 밸런서를 거쳐 상태를 "
            "보고하므로 중단이 50초를 넘기면 노드가 NotReady가 됩니다.",
        ),
    ),
    "kill-worker": Story(
        Said("A worker is killed", "워커 노드 강제 종료"),
        Said(
            "A worker dies with a pod of the Service on it. The cluster waits 50 s for a sign of life before "
            "it calls the node NotReady and takes its pods out of the Service; until then a share of the "
            "requests still goes to the dead pod, and fails or waits. The drill's own Deployment tolerates a "
            "lost node for 5 s instead of five minutes, so the pod is replaced soon after. The API is not "
            "touched.",
            "서비스의 파드가 떠 있는 워커 노드를 강제 종료합니다. 클러스터는 50초 동안 소식을 기다린 뒤에야 "
            "노드를 NotReady로 판단하고 그 파드를 서비스 엔드포인트에서 제외합니다. 그 전까지는 요청 일부가 "
            "죽은 파드로 가서 실패하거나 지연됩니다. 이 훈련의 디플로이먼트는 toleration을 기본값 5분에서 "
            "5초로 줄여 두었으므로 곧이어 다른 노드에 파드가 다시 생성됩니다. API는 영향을 받지 않아야 합니다.",
        ),
    ),
    "power-off-all": Story(
        Said("All machines lose power", "전체 머신 전원 차단"),
        Said(
            "Every machine is cut off at once, as in a power failure, and started again. Nothing answers in "
            "between. etcd acknowledges a write only after a majority has forced it to disk, so all of them "
            "must be there afterwards; and the cluster must find together by itself, in whatever order its "
            "machines come up.",
            "정전처럼 모든 머신의 전원을 한꺼번에 끊었다가 다시 켭니다. 그사이에는 아무것도 응답하지 "
            "않습니다. etcd는 과반수가 fsync로 디스크에 기록한 뒤에만 응답하므로, 응답받은 쓰기는 전원이 "
            "돌아온 뒤에도 모두 남아 있어야 합니다. 또한 머신이 어떤 순서로 켜지든 클러스터가 사람의 손을 "
            "빌리지 않고 정상화되어야 합니다.",
        ),
    ),
    "renew-certificates": Story(
        Said("Certificates are renewed", "인증서 갱신"),
        Said(
            "The control planes' certificates are renewed, and their components restarted to load them, one "
            "machine after another. While one machine's API server is away the other two serve, and its etcd "
            "member comes back before the next one goes, so the quorum holds. A leader may change with a "
            "restart; an upkeep that is due every year should cost no client more than a reconnect.",
            "컨트롤 플레인의 인증서를 갱신하고, 새 인증서를 읽도록 구성 요소를 한 대씩 차례로 재시작합니다. "
            "한 대의 API 서버가 빠진 동안 나머지 두 대가 요청을 처리하고, 다음 머신으로 넘어가기 전에 etcd "
            "멤버가 복귀하므로 쿼럼이 유지됩니다. 재시작 중에 리더가 바뀔 수는 있습니다. 해마다 돌아오는 "
            "작업이므로 클라이언트에는 재연결 한 번 이상의 영향이 없어야 합니다.",
        ),
    ),
}
"""By the drill's name, in the order in which they are told."""
