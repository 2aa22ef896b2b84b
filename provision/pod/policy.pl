# Asks other probe pods at ports that a NetworkPolicy allows or denies, by TCP and UDP, all side by side:
#
#   policy.pl SECONDS ALLOWED DENIED,DENIED… NAME=ADDRESS…
#
# `policy:NAME:PROTOCOL:PORT=ANSWER` for each: the name of the node that answered, or why none did. A denied port is
# asked once the allowed one has answered: before that, silence is no denial. Policies reach the nodes' rules a moment
# after the pods are Ready, so an allowed port that does not answer is asked again for 4 s, a denied one that answers
# for SECONDS. Like serve.pl, it uses no module. Where machines are emulated, all takes LAB_PATIENCE times as long.
my ($INET, %TYPE) = (2, tcp => 1, udp => 2);
my ($SET_FLAGS, $NON_BLOCKING, $IN_PROGRESS, $AGAIN) = (4, 2048, 115, 11);    # F_SETFL, O_NONBLOCK, EINPROGRESS, EAGAIN
my ($SOCKET, $ERROR) = (1, 4);    # SOL_SOCKET, SO_ERROR
my ($seconds, $allowed, $denied, @targets) = @ARGV;
my $patience = $ENV{LAB_PATIENCE} || 1;
my ($PAUSE, $TRY, $UNTIL_ALLOWED, $UNTIL_DENIED) = (0.3, $patience, 4 * $patience, $seconds * $patience);
my @questions;
$| = 1;

sub now { open my $file, "<", "/proc/uptime"; return (split / /, <$file>)[0] }

sub ask {
    my ($name, $address, $protocol, $port, $lasts) = @_;
    push @questions, { name => $name, address => $address, protocol => $protocol, port => $port, ends => now() + $lasts };
    try($questions[-1]);
}

# One try. A datagram may be lost, so it is sent three times.
sub try {
    my ($question) = @_;
    my ($type, $host) = ($TYPE{ $question->{protocol} }, pack "C4", split /\./, $question->{address});
    @$question{qw(answer sent send_again try_ends)} = ("", 0, 0, now() + $TRY);
    socket($question->{socket}, $INET, $type, 0) or return tried($question, "$!");
    fcntl $question->{socket}, $SET_FLAGS, $NON_BLOCKING;
    connect($question->{socket}, pack "S n a4 x8", $INET, $question->{port}, $host)
        or $! == $IN_PROGRESS
        or tried($question, "$!");
}

# What httpd understands, and serve.pl does not read. A connection that a firewall has rejected says so here alone: to
# Linux it is only a hint, which SO_ERROR shows once.
sub send_question {
    my ($question) = @_;
    my $rejected = unpack "i", getsockopt $question->{socket}, $SOCKET, $ERROR;
    return tried($question, "" . ($! = $rejected)) if $rejected;
    my $count = syswrite $question->{socket}, "GET /node HTTP/1.0\r\n\r\n";
    defined $count or return $! == $AGAIN || tried($question, "$!");
    $question->{sent}++;
    $question->{send_again} = now() + $TRY / 3;
}

# The answer is the last line: httpd puts a header before it.
sub receive {
    my ($question) = @_;
    my $count = sysread $question->{socket}, my $part, 4096;
    defined $count or return $! == $AGAIN || tried($question, "$!");
    $question->{answer} .= $part;
    return if $count && $question->{protocol} eq "tcp";
    my ($line) = $question->{answer} =~ /([^\r\n]+)\s*\z/;
    tried($question, defined $line ? "" : "an empty answer", $line);
}

sub tried {
    my ($question, $problem, $answer) = @_;
    my $is_allowed = $question->{port} == $allowed;
    close $question->{socket} if $question->{socket};
    delete $question->{socket};
    if (defined $answer != $is_allowed && now() < $question->{ends}) {
        $question->{again} = now() + $PAUSE;
        return;
    }
    $question->{done} = 1;
    print "policy:$question->{name}:$question->{protocol}:$question->{port}=", $answer // $problem, "\n";
    $is_allowed && defined $answer or return;
    ask(@$question{qw(name address protocol)}, $_, $UNTIL_DENIED) for split /,/, $denied;
}

for my $target (@targets) {
    ask(split(/=/, $target), $_, $allowed, $UNTIL_ALLOWED) for sort keys %TYPE;
}
while (my @open = grep { !$_->{done} } @questions) {
    my ($readable, $writable) = ("", "");
    for my $question (@open) {
        try($question) if !$question->{socket} && now() >= $question->{again};
        $question->{socket} or next;
        vec($readable, fileno $question->{socket}, 1) = 1;
        my $again = $question->{protocol} eq "udp" && $question->{sent} < 3 && now() >= $question->{send_again};
        vec($writable, fileno $question->{socket}, 1) = 1 if !$question->{sent} || $again;
    }
    select($readable, $writable, undef, 0.05);
    for my $question (@open) {
        my $number = $question->{socket} ? fileno $question->{socket} : next;
        send_question($question) if vec $writable, $number, 1;
        receive($question) if $question->{socket} && vec $readable, $number, 1;
        tried($question, "no answer") if $question->{socket} && now() >= $question->{try_ends};
    }
}
