# stat|read DIRECTORY COUNT SECONDS: goes round the small files for that long.
my ($mode, $directory, $count, $seconds) = @ARGV;
sub now { open(my $clock, '<', '/proc/uptime') or die; return (split ' ', <$clock>)[0]; }
my ($over, $done, $content) = (0, 0, '');
$SIG{ALRM} = sub { $over = 1 };
my $began = now();
alarm $seconds;
until ($over) {
    my $path = "$directory/" . $done % $count;
    if ($mode eq 'stat') {
        stat($path) or $over or die "$path: $!";
    } else {
        open(my $file, '<', $path) or $over or die "$path: $!";
        $over or sysread($file, $content, 4096) or $over or die "$path: $!";
    }
    $done++;
}
printf "files %d %.2f\n", $done, now() - $began;
