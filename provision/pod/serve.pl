# Answers at these ports with this node's name, whatever it is asked: words such as udp:8080 and tcp:8081.
# It returns once all are bound, and goes on in the background. busybox, which serves the rest, has no UDP in Debian.
# It uses no module of perl's, since the probe image has the program alone: numbers stand for Linux' constants.
my ($INET, %TYPE) = (2, tcp => 1, udp => 2);
my (%type, $waiting);
for my $word (@ARGV) {
    my ($protocol, $port) = split /:/, $word;
    socket(my $socket, $INET, $TYPE{$protocol}, 0) or die "$word: $!\n";
    setsockopt($socket, 1, 2, pack "i", 1);    # SO_REUSEADDR
    bind($socket, pack "S n N x8", $INET, $port, 0) or die "$word: $!\n";
    $protocol eq "udp" or listen($socket, 64) or die "$word: $!\n";
    $type{fileno $socket} = [$protocol, $socket];
    vec($waiting, fileno $socket, 1) = 1;
}
defined(my $child = fork) or die "fork: $!\n";
exit if $child;
while (1) {
    select(my $ready = $waiting, undef, undef, undef) > 0 or next;
    for my $number (grep { vec $ready, $_, 1 } keys %type) {
        my ($protocol, $socket) = @{ $type{$number} };
        if ($protocol eq "udp") {
            my $asker = recv($socket, my $question, 512, 0) // next;
            send $socket, $ENV{NODE}, 0, $asker;
            next;
        }
        accept(my $connection, $socket) or next;
        # Without reading, the end of the connection would take the answer back. What says nothing is not waited for.
        vec(my $asked = "", fileno $connection, 1) = 1;
        select($asked, undef, undef, 0.5) > 0 and sysread $connection, my $question, 512;
        syswrite $connection, $ENV{NODE};
        close $connection;
    }
}
