/* Linked into the static binary of `make dist` and of the Dockerfile, and into nothing else: names of hosts are looked up in /etc/hosts and in the
 * DNS, whatever /etc/nsswitch.conf says.
 *
 * The GNU C library loads every other service of that file at run time, as a shared object that brings the system's own C
 * library with it. If that is of another version than the one in the binary, the process dies at the first name that it looks up:
 * one of Debian 12 did so on Debian 13 with `myhostname`, `resolve` or `mdns4_minimal` installed (SIGFPE). */
#include <nss.h>

__attribute__((constructor)) static void look_up_hosts_without_modules(void)
{
    __nss_configure_lookup("hosts", "files dns");
}
