"""Checks of the CIS Debian Linux 12 Benchmark v1.1.0 that need no shell, by its numbers.

They look at files and at the running kernel; what is to hold after the next start only, such as a
line in sysctl.d, is not looked at.
"""

from micropython import const

from . import listed

CHECKS = """
CIS-debian-12
Filesystem-1.1.1.1|Low|module cramfs|cramfs cannot be loaded|Put "install cramfs /bin/false" into /etc/modprobe.d/
Filesystem-1.1.1.2|Low|module freevxfs|freevxfs cannot be loaded|Put "install freevxfs /bin/false" into /etc/modprobe.d/
Filesystem-1.1.1.3|Low|module hfs|hfs cannot be loaded|Put "install hfs /bin/false" into /etc/modprobe.d/
Filesystem-1.1.1.4|Low|module hfsplus|hfsplus cannot be loaded|Put "install hfsplus /bin/false" into /etc/modprobe.d/
Filesystem-1.1.1.5|Low|module jffs2|jffs2 cannot be loaded|Put "install jffs2 /bin/false" into /etc/modprobe.d/
Filesystem-1.1.1.9|Medium|module usb-storage|USB storage cannot be used|Put "install usb-storage /bin/false" into /etc/modprobe.d/
Filesystem-1.1.2.1.1|Medium|mounted /tmp|/tmp is a file system of its own|Enable tmp.mount, or give /tmp a partition
Filesystem-1.1.2.1.2|Medium|option /tmp nodev|/tmp is mounted with nodev|Add nodev to the options of /tmp
Filesystem-1.1.2.1.3|Medium|option /tmp nosuid|/tmp is mounted with nosuid|Add nosuid to the options of /tmp
Filesystem-1.1.2.1.4|Medium|option /tmp noexec|/tmp is mounted with noexec|Add noexec to the options of /tmp
Filesystem-1.1.2.2.1|Medium|mounted /dev/shm|/dev/shm is a file system of its own|Mount a tmpfs at /dev/shm
Filesystem-1.1.2.2.2|Medium|option /dev/shm nodev|/dev/shm is mounted with nodev|Add nodev to the options of /dev/shm
Filesystem-1.1.2.2.3|Medium|option /dev/shm nosuid|/dev/shm is mounted with nosuid|Add nosuid to the options of /dev/shm
Filesystem-1.1.2.2.4|Medium|option /dev/shm noexec|/dev/shm is mounted with noexec|Add noexec to the options of /dev/shm
Filesystem-1.1.2.3.2|Low|option /home nodev|/home is mounted with nodev|Add nodev to the options of /home
Filesystem-1.1.2.3.3|Low|option /home nosuid|/home is mounted with nosuid|Add nosuid to the options of /home
Filesystem-1.1.2.5.2|Low|option /var/tmp nodev|/var/tmp is mounted with nodev|Add nodev to the options of /var/tmp
Filesystem-1.1.2.5.3|Low|option /var/tmp nosuid|/var/tmp is mounted with nosuid|Add nosuid to the options of /var/tmp
Filesystem-1.1.2.5.4|Low|option /var/tmp noexec|/var/tmp is mounted with noexec|Add noexec to the options of /var/tmp
Hardening-1.3.1.1|Medium|installed apparmor apparmor-utils|AppArmor is installed|Install apparmor and apparmor-utils
Hardening-1.5.1|High|sysctl 2 kernel.randomize_va_space|Address space layout is randomized|Set kernel.randomize_va_space = 2
Hardening-1.5.2|Medium|sysctl 1,2,3 kernel.yama.ptrace_scope|ptrace is restricted|Set kernel.yama.ptrace_scope = 1
Hardening-1.5.3|Medium|core_dumps|Core dumps are restricted|Set fs.suid_dumpable = 0, and "* hard core 0" in limits.d
Hardening-1.5.4|Medium|absent prelink|prelink is not installed|Purge prelink
Banners-1.6.4|Low|file ?/etc/motd 644|/etc/motd is root's to change|chown root:root /etc/motd; chmod 644 /etc/motd
Banners-1.6.5|Low|file /etc/issue 644|/etc/issue is root's to change|chown root:root /etc/issue; chmod 644 /etc/issue
Banners-1.6.6|Low|file ?/etc/issue.net 644|/etc/issue.net is root's to change|chown root:root /etc/issue.net; chmod 644 /etc/issue.net
Services-2.1.2|Medium|unused avahi-daemon.service,avahi-daemon.socket avahi-daemon|Avahi is not in use|Purge avahi-daemon, or mask its units
Services-2.1.6|Medium|unused vsftpd.service vsftpd|No FTP server is in use|Purge vsftpd, or mask its unit
Services-2.1.9|Medium|unused nfs-server.service nfs-kernel-server|No NFS server is in use|Purge nfs-kernel-server, or mask its unit
Services-2.1.11|Low|unused cups.service,cups.socket cups|No print server is in use|Purge cups, or mask its units
Services-2.1.12|Medium|unused rpcbind.service,rpcbind.socket rpcbind|rpcbind is not in use|Purge rpcbind, or mask its units
Services-2.1.13|Medium|unused rsync.service rsync|The rsync daemon is not in use|Purge rsync, or mask its unit
Services-2.1.14|Medium|unused smbd.service samba|Samba is not in use|Purge samba, or mask its unit
Services-2.1.15|Medium|unused snmpd.service snmpd|SNMP is not in use|Purge snmpd, or mask its unit
Services-2.1.16|High|unused tftpd-hpa.service tftpd-hpa|No TFTP server is in use|Purge tftpd-hpa, or mask its unit
Services-2.1.19|Medium|unused xinetd.service xinetd|xinetd is not in use|Purge xinetd, or mask its unit
Services-2.2.1|Low|absent nis|The NIS client is not installed|Purge nis
Services-2.2.2|Medium|absent rsh-client|The rsh client is not installed|Purge rsh-client
Services-2.2.3|Low|absent talk|The talk client is not installed|Purge talk
Services-2.2.4|Medium|absent telnet inetutils-telnet|The Telnet client is not installed|Purge telnet and inetutils-telnet
Services-2.2.6|Low|absent ftp tnftp|The FTP client is not installed|Purge ftp and tnftp
Services-2.3.1.1|Medium|one_of systemd-timesyncd.service,chrony.service|One daemon keeps the time|Enable either systemd-timesyncd or chrony
Cron-2.4.1.2|Medium|file ?/etc/crontab 600|/etc/crontab is for root only|chown root:root /etc/crontab; chmod 600 /etc/crontab
Cron-2.4.1.3|Medium|file ?/etc/cron.hourly 700|/etc/cron.hourly is for root only|chmod 700 /etc/cron.hourly
Cron-2.4.1.4|Medium|file ?/etc/cron.daily 700|/etc/cron.daily is for root only|chmod 700 /etc/cron.daily
Cron-2.4.1.5|Medium|file ?/etc/cron.weekly 700|/etc/cron.weekly is for root only|chmod 700 /etc/cron.weekly
Cron-2.4.1.6|Medium|file ?/etc/cron.monthly 700|/etc/cron.monthly is for root only|chmod 700 /etc/cron.monthly
Cron-2.4.1.7|Medium|file ?/etc/cron.d 700|/etc/cron.d is for root only|chmod 700 /etc/cron.d
Network-3.2.1|Medium|module dccp|DCCP cannot be loaded|Put "install dccp /bin/false" into /etc/modprobe.d/
Network-3.2.2|Medium|module tipc|TIPC cannot be loaded|Put "install tipc /bin/false" into /etc/modprobe.d/
Network-3.2.3|Medium|module rds|RDS cannot be loaded|Put "install rds /bin/false" into /etc/modprobe.d/
Network-3.2.4|Medium|module sctp|SCTP cannot be loaded|Put "install sctp /bin/false" into /etc/modprobe.d/
Network-3.3.1|Medium|sysctl 0 net.ipv4.ip_forward ?net.ipv6.conf.all.forwarding|Packets are not forwarded|Set net.ipv4.ip_forward = 0 and net.ipv6.conf.all.forwarding = 0
Network-3.3.2|Medium|sysctl 0 net.ipv4.conf.all.send_redirects net.ipv4.conf.default.send_redirects|No ICMP redirects are sent|Set net.ipv4.conf.{all,default}.send_redirects = 0
Network-3.3.3|Low|sysctl 1 net.ipv4.icmp_ignore_bogus_error_responses|Bogus ICMP responses are ignored|Set net.ipv4.icmp_ignore_bogus_error_responses = 1
Network-3.3.4|Medium|sysctl 1 net.ipv4.icmp_echo_ignore_broadcasts|ICMP requests to broadcast are ignored|Set net.ipv4.icmp_echo_ignore_broadcasts = 1
Network-3.3.5|Medium|sysctl 0 net.ipv4.conf.all.accept_redirects net.ipv4.conf.default.accept_redirects ?net.ipv6.conf.all.accept_redirects ?net.ipv6.conf.default.accept_redirects|ICMP redirects are not accepted|Set net.{ipv4,ipv6}.conf.{all,default}.accept_redirects = 0
Network-3.3.6|Medium|sysctl 0 net.ipv4.conf.all.secure_redirects net.ipv4.conf.default.secure_redirects|Secure ICMP redirects are not accepted|Set net.ipv4.conf.{all,default}.secure_redirects = 0
Network-3.3.7|Medium|sysctl 1 net.ipv4.conf.all.rp_filter net.ipv4.conf.default.rp_filter|Reverse paths are filtered|Set net.ipv4.conf.{all,default}.rp_filter = 1
Network-3.3.8|Medium|sysctl 0 net.ipv4.conf.all.accept_source_route net.ipv4.conf.default.accept_source_route ?net.ipv6.conf.all.accept_source_route ?net.ipv6.conf.default.accept_source_route|Source-routed packets are not accepted|Set net.{ipv4,ipv6}.conf.{all,default}.accept_source_route = 0
Network-3.3.9|Low|sysctl 1 net.ipv4.conf.all.log_martians net.ipv4.conf.default.log_martians|Suspicious packets are logged|Set net.ipv4.conf.{all,default}.log_martians = 1
Network-3.3.10|High|sysctl 1 net.ipv4.tcp_syncookies|TCP SYN cookies are on|Set net.ipv4.tcp_syncookies = 1
Network-3.3.11|Medium|sysctl 0 ?net.ipv6.conf.all.accept_ra ?net.ipv6.conf.default.accept_ra|IPv6 router advertisements are not accepted|Set net.ipv6.conf.{all,default}.accept_ra = 0
SSH-5.1.1|Medium|sshd_files 600|sshd_config is for root only|chown root:root and chmod 600 /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf
SSH-5.1.2|High|file /etc/ssh/ssh_host_*_key 600|Private host keys are for root only|chown root:root and chmod 600 /etc/ssh/ssh_host_*_key
SSH-5.1.3|Medium|file /etc/ssh/ssh_host_*_key.pub 644|Public host keys are root's to change|chown root:root and chmod 644 /etc/ssh/ssh_host_*_key.pub
SSH-5.1.6|High|sshd Ciphers - without 3des-cbc aes128-cbc aes192-cbc aes256-cbc|sshd offers strong ciphers only|Remove the CBC ciphers from Ciphers
SSH-5.1.7|Low|sshd_alive 900|sshd ends dead sessions|Set ClientAliveInterval 15 and ClientAliveCountMax 3
SSH-5.1.8|Low|sshd DisableForwarding no is yes|sshd does not forward|Set DisableForwarding yes
SSH-5.1.9|Low|sshd GSSAPIAuthentication no is no|sshd takes no GSSAPI login|Set GSSAPIAuthentication no
SSH-5.1.10|High|sshd HostbasedAuthentication no is no|sshd takes no host-based login|Set HostbasedAuthentication no
SSH-5.1.11|High|sshd IgnoreRhosts yes is yes|sshd ignores .rhosts files|Set IgnoreRhosts yes
SSH-5.1.12|Medium|sshd KexAlgorithms - without diffie-hellman-group1-sha1 diffie-hellman-group14-sha1 diffie-hellman-group-exchange-sha1|sshd exchanges keys by strong algorithms only|Remove those with sha1 from KexAlgorithms
SSH-5.1.13|Low|sshd LoginGraceTime 120 from 1 60|A login takes a minute at most|Set LoginGraceTime 60
SSH-5.1.14|Low|sshd LogLevel info is info verbose|sshd logs logins|Set LogLevel INFO or VERBOSE
SSH-5.1.16|Medium|sshd MaxAuthTries 6 from 1 4|Four failed logins end a connection|Set MaxAuthTries 4
SSH-5.1.17|Low|sshd MaxSessions 10 from 0 10|Sessions of a connection are limited|Set MaxSessions 10
SSH-5.1.19|High|sshd PermitEmptyPasswords no is no|sshd takes no empty password|Set PermitEmptyPasswords no
SSH-5.1.20|High|sshd PermitRootLogin prohibit-password is no|root cannot log in by SSH|Set PermitRootLogin no
SSH-5.1.21|Medium|sshd PermitUserEnvironment no is no|Users cannot set sshd's environment|Set PermitUserEnvironment no
SSH-5.1.22|Medium|sshd UsePAM no is yes|sshd asks PAM|Set UsePAM yes
Sudo-5.2.1|Medium|installed sudo|sudo is installed|Install sudo
Sudo-5.2.2|Medium|sudo use_pty|sudo runs commands in a terminal of their own|Put "Defaults use_pty" into /etc/sudoers
Sudo-5.2.3|Low|sudo logfile|sudo keeps a log|Put "Defaults logfile=/var/log/sudo.log" into /etc/sudoers
Accounts-5.4.1.1|Medium|password_age 1 365|Passwords expire within a year|Set PASS_MAX_DAYS 365 in /etc/login.defs; chage --maxdays 365 for each user
Accounts-5.4.2.1|High|root_only 2|Only root has user id 0|Give the others an id of their own
Accounts-5.4.2.2|High|root_only 3|Only root has group id 0|Give the others a group of their own
Permissions-7.1.1|High|file /etc/passwd 644|/etc/passwd is root's to change|chown root:root /etc/passwd; chmod 644 /etc/passwd
Permissions-7.1.2|Medium|file ?/etc/passwd- 644|/etc/passwd- is root's to change|chown root:root /etc/passwd-; chmod 644 /etc/passwd-
Permissions-7.1.3|High|file /etc/group 644|/etc/group is root's to change|chown root:root /etc/group; chmod 644 /etc/group
Permissions-7.1.4|Medium|file ?/etc/group- 644|/etc/group- is root's to change|chown root:root /etc/group-; chmod 644 /etc/group-
Permissions-7.1.5|High|file /etc/shadow 640 0 0,42|/etc/shadow is for root and shadow only|chown root:shadow /etc/shadow; chmod 640 /etc/shadow
Permissions-7.1.6|High|file ?/etc/shadow- 640 0 0,42|/etc/shadow- is for root and shadow only|chown root:shadow /etc/shadow-; chmod 640 /etc/shadow-
Permissions-7.1.7|High|file /etc/gshadow 640 0 0,42|/etc/gshadow is for root and shadow only|chown root:shadow /etc/gshadow; chmod 640 /etc/gshadow
Permissions-7.1.8|High|file ?/etc/gshadow- 640 0 0,42|/etc/gshadow- is for root and shadow only|chown root:shadow /etc/gshadow-; chmod 640 /etc/gshadow-
Permissions-7.1.9|Low|file /etc/shells 644|/etc/shells is root's to change|chown root:root /etc/shells; chmod 644 /etc/shells
Permissions-7.1.10|Medium|file ?/etc/security/opasswd* 600|Old passwords are for root only|chown root:root and chmod 600 /etc/security/opasswd*
Accounts-7.2.1|High|passwords passwd x|Passwords are in /etc/shadow|pwconv
Accounts-7.2.2|High|passwords shadow|No password is empty|Lock the accounts: passwd -l
Accounts-7.2.3|Low|groups|Each user's group exists|Add the groups, or change the users
Accounts-7.2.5|Medium|unique passwd 2|No two users have one id|Give each user an id of their own
Accounts-7.2.6|Medium|unique group 2|No two groups have one id|Give each group an id of its own
Accounts-7.2.7|Medium|unique passwd 0|No two users have one name|Rename or remove one of them
Accounts-7.2.8|Medium|unique group 0|No two groups have one name|Rename or remove one of them
"""  # noqa: E501

_SSHD = "/etc/ssh/sshd_config"
_LIMITS = ("/etc/security/limits.conf", "/etc/security/limits.d/*.conf")
_TABLES = ("passwd", "shadow", "group")
_SYSTEM = ("root", "sync", "shutdown", "halt", "operator")  # whose group is root's, after CIS
_SLICE = const(64)  # lines read in a row
_INCLUDES_MAX = const(16)  # as sshd's
_ENOENT = const(2)


def concerns(facts):
    """Whether this is Debian, or of its family."""
    if not facts.exists("/etc/os-release"):
        return False
    for words in facts.words("/etc/os-release"):
        key, _, value = " ".join(words).partition("=")
        if key in ("ID", "ID_LIKE") and "debian" in value.strip('"').split(" "):
            return True
    return False


def check_module(facts, name):
    """Passes where the kernel has not loaded the module, and would not."""
    name = name.replace("-", "_")
    for words in facts.words("/proc/modules"):
        if words[0] == name:
            return name + " is loaded"
    for words in facts.words("/etc/modprobe.d/*.conf", "/usr/lib/modprobe.d/*.conf"):
        if words[0] == "install" and words[1].replace("-", "_") == name:
            if words[2].rpartition("/")[2] in ("false", "true"):
                return ""
    release = next(facts.lines("/proc/sys/kernel/osrelease"))
    index = "/lib/modules/%s/modules.dep" % release
    if not facts.exists(index):
        return ""
    count = 0
    for line in facts.lines(index):
        if line.partition(":")[0].rpartition("/")[2].split(".")[0].replace("-", "_") == name:
            return name + " can be loaded"
        count += 1
        if count % _SLICE == 0:
            yield
    return ""


def _options(facts, point):
    found = None
    for words in facts.words("/proc/self/mounts"):
        if words[1] == point:
            found = words[3].split(",")
    return found


def check_mounted(facts, point):
    return "" if _options(facts, point) else "it is a part of another file system"


def check_option(facts, point, option):
    options = _options(facts, point)
    if options is None:
        return None
    return "" if option in options else "mounted with " + ",".join(options)


def _ipv6_is_off(facts):
    paths = ["/proc/sys/net/ipv6/conf/%s/disable_ipv6" % name for name in ("all", "default")]
    return all([facts.exists(path) and next(facts.lines(path), "") == "1" for path in paths])


def check_sysctl(facts, wanted, *keys):
    """Passes where each key has one of the values; one that begins with "?" need not exist."""
    wrong = []
    asked = 0
    for key in keys:
        path = "/proc/sys/" + key.lstrip("?").replace(".", "/")
        if key[0] == "?" and not facts.exists(path):
            continue
        if key[:9] == "?net.ipv6" and _ipv6_is_off(facts):
            continue
        asked += 1
        value = next(facts.lines(path), "")
        if value not in wanted.split(","):
            wrong.append("%s is %s" % (key.lstrip("?"), value))
    return listed(wrong) if asked else None


def check_core_dumps(facts):
    limits = [words[:4] for words in facts.words(*_LIMITS)]  # a comment may follow
    if ["*", "hard", "core", "0"] not in limits:
        return "no limits.conf says * hard core 0"
    return check_sysctl(facts, "0", "fs.suid_dumpable")


def check_file(facts, path, mode, users="0", groups="0"):
    """Passes where no bit is set but those of `mode`, and user and group are among these.

    A path that begins with "?" need not exist; a pattern need not stand for any.
    """
    wrong = []
    asked = 0
    for each in facts.paths(path.lstrip("?")):
        try:
            found, user, group = facts.stat(each)
        except OSError as error:
            if error.errno != _ENOENT or path[0] != "?":
                raise
            continue
        asked += 1
        strange = str(user) not in users.split(",") or str(group) not in groups.split(",")
        if strange or found & 0o7777 & ~int(mode, 8):
            wrong.append("%s is %o, of %d:%d" % (each, found & 0o7777, user, group))
    return listed(wrong) if asked else None


def _installed(facts, package):
    if not facts.exists("/var/lib/dpkg/info"):
        raise RuntimeError("dpkg is not used here")
    return facts.exists("/var/lib/dpkg/info/%s.md5sums" % package)


def check_installed(facts, *packages):
    missing = listed([package for package in packages if not _installed(facts, package)])
    return missing and "not installed: " + missing


def check_absent(facts, *packages):
    return listed([package for package in packages if _installed(facts, package)])


def _in_use(facts, units):
    """Returns those of the units that are enabled or running. Errors: RuntimeError."""
    if not facts.exists("/etc/systemd/system"):
        raise RuntimeError("systemd is not used here")
    wants = facts.paths("/etc/systemd/system/*.wants")
    return [
        unit
        for unit in units.split(",")
        if facts.exists("/sys/fs/cgroup/system.slice/" + unit)
        or any([facts.exists(folder + "/" + unit) for folder in wants])
    ]


def check_unused(facts, units, *packages):
    """Passes where no package is installed, or no unit is enabled or running."""
    if not any([_installed(facts, package) for package in packages]):
        return ""
    return listed(_in_use(facts, units))


def check_one_of(facts, units):
    used = _in_use(facts, units)
    return "" if len(used) == 1 else listed(used) or "none is enabled"


def check_sshd_files(facts, mode):
    """Passes where `file` does with sshd_config, and with each file in sshd_config.d."""
    found = check_file(facts, "?" + _SSHD, mode)
    if found == "":
        found = check_file(facts, _SSHD + ".d/*.conf", mode) or ""
    return found


def _sshd(facts, path=_SSHD, depth=0):
    """Yields the words of what sshd is told for all connections, in the order it reads them."""
    if depth > _INCLUDES_MAX:
        raise RuntimeError("sshd_config includes itself")
    for_all = True
    for words in facts.words(path):
        words = " ".join(words).replace("=", " ", 1).split()
        keyword = words[0].lower()
        if keyword == "match":
            for_all = words[1:2] == ["all"]
        elif for_all and keyword == "include":
            for pattern in words[1:]:
                pattern = pattern.strip('"')
                if pattern[:1] != "/":
                    pattern = "/etc/ssh/" + pattern
                for included in facts.paths(pattern):
                    yield from _sshd(facts, included, depth + 1)
        elif for_all:
            yield words


def _seconds(text):
    unit = {"s": 1, "m": 60, "h": 3600}.get(text[-1:].lower())
    number = text[:-1] if unit else text
    if not number.isdigit():
        raise RuntimeError("%s is no number" % text)
    return int(number) * (unit or 1)


def check_sshd(facts, keyword, value, rule, *wanted):
    """`value` is sshd's default. Rules: "is" one of these, "from" low to high, "without" these."""
    if not facts.exists(_SSHD):
        return None
    for words in _sshd(facts):
        if words[0].lower() == keyword.lower():
            value = words[1].strip('"') if len(words) > 1 else ""
            break
    if rule == "is":
        good = value.lower() in wanted
    elif rule == "from":
        good = int(wanted[0]) <= _seconds(value) <= int(wanted[1])
    elif value[:1] == "-":  # the default, less some
        good = True
    else:
        good = not any([name in wanted for name in value.lstrip("+^").split(",")])
    return "" if good else "%s is %s" % (keyword, value)


def check_sshd_alive(facts, limit):
    """Passes where sshd asks for a sign of life by so many seconds, and ends who gives none."""
    found = check_sshd(facts, "ClientAliveInterval", "0", "from", "1", limit)
    return found or check_sshd(facts, "ClientAliveCountMax", "3", "from", "1", limit)


def check_sudo(facts, option):
    if not _installed(facts, "sudo"):
        return None
    paths = facts.paths("/etc/sudoers.d/*")  # sudo skips what an editor or dpkg leaves there
    paths = [path for path in paths if path[-1] != "~" and "." not in path.rpartition("/")[2]]
    last = ""
    for words in facts.words("/etc/sudoers", *paths):
        if words[0] == "Defaults":
            for word in " ".join(words[1:]).split(","):
                name = word.partition("=")[0].strip()
                if name.lstrip("!") == option:
                    last = name
    return "" if last == option else option + " is not set"


def check_login_defs(facts, key, low, high):
    value = ""
    for words in facts.words("/etc/login.defs"):
        if words[0] == key and len(words) > 1:
            value = words[1]
    if not value.isdigit():
        return key + " is not set"
    return "" if int(low) <= int(value) <= int(high) else "%s is %s" % (key, value)


def _table(facts, name):
    """Yields the fields of each line of a table of accounts."""
    if name not in _TABLES:
        raise RuntimeError("there is no table %s of accounts" % name)
    for line in facts.lines("/etc/" + name):
        if line and line[0] != "#":
            yield line.split(":")


def check_password_age(facts, low, high):
    """Passes where passwords expire in time: those of new users, and those there are."""
    rows = [row for row in _table(facts, "shadow") if row[1][:1] == "$"]
    late = [row[0] for row in rows if not int(low) <= int(row[4] or -1) <= int(high)]
    return check_login_defs(facts, "PASS_MAX_DAYS", low, high) or listed(late)


def check_root_only(facts, field):
    field = int(field)
    allowed = _SYSTEM[:1] if field == 2 else _SYSTEM
    users = _table(facts, "passwd")
    return listed([row[0] for row in users if row[field] == "0" and row[0] not in allowed])


def check_passwords(facts, table, wanted=""):
    """Passes where the second field of each line is `wanted`, or not empty without one."""
    rows = _table(facts, table)
    return listed([row[0] for row in rows if (row[1] != wanted if wanted else not row[1])])


def check_groups(facts):
    known = {row[2] for row in _table(facts, "group")}
    return listed([row[0] for row in _table(facts, "passwd") if row[3] not in known])


def check_unique(facts, table, field):
    """Passes where no two lines of passwd or group have the same name (0) or id (2)."""
    field = 2 if field == "2" else 0  # never the password's
    seen = set()
    twice = []
    for row in _table(facts, table):
        if row[field] in seen:
            twice.append(row[field])
        seen.add(row[field])
    return listed(twice)
