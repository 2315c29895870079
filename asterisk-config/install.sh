#!/usr/bin/env bash
# Put a runnable Asterisk under DEST from Debian's packages, beside whatever the machine runs:
# no root, no chroot, no dpkg database, no maintainer scripts. apt with its own state fetches the packages, they are
# unpacked, and the programs are started by the packages' own ld.so through relocatable wrappers in DEST/bin.
#
#   asterisk-config/install.sh [DEST]             default DEST: .trunkline/asterisk of the checkout
#   asterisk-config/install.sh --config DIR ...   only write the configuration of an Asterisk that is already there
#                                                 (asterisk-config/install.sh --config --help tells the settings)
#
#   SUITE=auto|sid|bullseye   Asterisk 22, or 16 where sid cannot be installed; auto (default) tries them in that order
#   DEBS=DIR                  keep the packages here and use them again (no network when DIR/packages.lock fits)
#   MIRROR=URL                default: the Debian mirror this machine's apt uses
#   FULL=1                    the whole dependency closure, not the lean set
set -euo pipefail
umask 022
here=$(cd "$(dirname "$0")" && pwd)
if [ "${1:-}" = --config ]; then
  shift
  case ${1:-} in -*) set -- /etc/asterisk "$@" ;; esac
  exec python3 "$here/../daemon/trunkline/embedded/render.py" --templates "$here/.." --into "${@:-/etc/asterisk}"
fi
dest=$(realpath -m "${1:-$here/../.trunkline/asterisk}")
debs=$(realpath -m "${DEBS:-$dest.debs}")
say() { echo "asterisk: $*"; }
die() { echo "asterisk: $*" >&2; exit 1; }

for tool in apt-get dpkg-deb sha256sum tar realpath; do
  command -v "$tool" >/dev/null || die "'$tool' is missing: this script needs Debian's apt (or an own Asterisk: --config)"
done
arch=$(dpkg --print-architecture)
case $arch in
  amd64) multiarch=x86_64-linux-gnu ;;
  arm64) multiarch=aarch64-linux-gnu ;;
  *) die "no packages are prepared for the architecture '$arch' (amd64 and arm64 are): install Asterisk yourself, then --config" ;;
esac
want="asterisk asterisk-modules asterisk-core-sounds-en-gsm openssl"
# Of the ~180 packages of the closure, those no module of modules.conf links to.
skip='^(python3|libpython3|perl|libperl|lib.*-perl$|gnupg|gpg|dirmngr|pinentry|libsnmp|libicu|libglib|libgtk|libgmime|libgnutls|libunistring|libhogweed|libnettle|libp11|libtiff|libwebp|libjpeg|libasound|libjack|libportaudio|libsamplerate|libldap|libsasl|libsybdb|freetds|libunbound|libneon|libical|libiksemel|liblua|libopus|libvorbis|libogg|libspandsp|libspeex|libvo-|libopencore|libcodec2|libcurl|libpq|libodbc|odbc|libradcli|libresample|libk5|libkrb5|libgssapi|libssh2|libnghttp|libngtcp|libbrotli|libgpg|libgcrypt|libksba|libassuan|libnpth|libgdbm|libdb5|libsensors|libpci|pci.ids|libmount|libblkid|libudev|libsharpyuv|liblerc|libdeflate|libltdl|libjbig|adduser|passwd|debconf|base-passwd|init-system|lsb|sysvinit|tzdata|ucf|sensible|netbase|media-types|locales|login|util-linux|libpam|libaudit|libselinux|libsemanage|coreutils|dpkg|tar$|asterisk-config|ca-certificates)'
skip16=$(echo "$skip" | sed 's/libicu|//;s/libgpg|libgcrypt|//')

apt_uri() { # the first Debian mirror of this machine's apt; "security" for the security archive
  apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
    awk -v sec="${1:-}" '(($2 ~ /-security/) == (sec != "")) && $1 ~ /debian/ { sub("/$", "", $1); print $1; exit }'
}

apt_setup() { # SUITE DIR: an apt that shares nothing with the machine's but its proxy, credentials and keys
  local suite=$1 w=$2 mirror sec=''
  mirror=${MIRROR:-$(apt_uri)}
  [ -n "$mirror" ] || die "this machine's apt knows no Debian mirror: set MIRROR=URL"
  [ "$suite" = sid ] || sec=${MIRROR_SECURITY:-$(apt_uri security)}
  mkdir -p "$w"/{etc/apt.conf.d,etc/preferences.d,etc/parts,state/lists/partial,cache/archives/partial}
  : >"$w/status"
  {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$mirror" "$suite"
    [ -z "$sec" ] || printf '\nTypes: deb\nURIs: %s\nSuites: %s-security\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$sec" "$suite"
  } >"$w/etc/parts/debian.sources"
  apt-config dump | grep -E '^Acquire::(https?|ftp|Retries)' >"$w/apt.conf" || true
  cat >>"$w/apt.conf" <<C
Dir "$w"; Dir::Etc "$w/etc"; Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "$w/etc/parts";
Dir::Etc::netrc "/etc/apt/auth.conf"; Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "$w/state"; Dir::State::status "$w/status"; Dir::Cache "$w/cache"; Dir::Log "$w";
APT::Install-Recommends "false"; APT::Architecture "$arch"; APT::Architectures { "$arch"; };
Acquire::Languages "none"; Acquire::Retries "3"; APT::Sandbox::User "root";
// a mirror may lag: sid's Release is valid for 7 days only. Its signature is still checked.
Acquire::Check-Valid-Until "false";
C
}

fetch() { # SUITE: the packages into $debs
  local suite=$1 lean=$skip n v
  [ "$suite" = sid ] || lean=$skip16
  say "reading the package lists of Debian $suite"
  apt_setup "$suite" "$tmp/apt"
  mkdir -p "$debs"
  rm -f -- "$debs"/*.deb "$debs/packages.lock"
  (
    export APT_CONFIG=$tmp/apt/apt.conf
    apt-get -qq update || exit 1
    apt-get install -y --print-uris $want 2>/dev/null | sed -n "s/^'[^']*' \(\S*\)_\(\S*\)_\(all\|$arch\)\.deb .*/\1 \2/p" |
      while read -r n v; do
        [ -n "${FULL:-}" ] || ! [[ $n =~ $lean ]] || continue
        echo "$n=${v//%3a/:}"
      done >"$tmp/list"
    [ -s "$tmp/list" ] || { echo "asterisk: $suite has no installable Asterisk for $arch" >&2; exit 1; }
    say "downloading $(wc -l <"$tmp/list") packages"
    cd "$debs"
    apt-get -qq download $(cat "$tmp/list") || exit 1
    sha256sum -- *.deb >packages.lock
  )
}

unpack() { # the packages from $debs into $tree
  local d f root=$tree/root p
  say "unpacking $(find "$debs" -name '*.deb' | wc -l) packages"
  rm -rf -- "$tree"
  mkdir -p "$root" "$tree/bin"
  for d in "$debs"/*.deb; do
    dpkg-deb --fsys-tarfile "$d" | tar -C "$root" -xf - --no-same-owner \
      --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' --exclude='./usr/share/lintian' \
      --exclude='./usr/share/asterisk/phoneprov' --exclude='./usr/share/asterisk/firmware' --exclude='*/gconv/*' \
      --exclude='./usr/share/bug' --exclude='./usr/share/zoneinfo' --exclude='./etc' --exclude='./var' || return 1
  done
  for d in bin sbin lib lib64; do [ -e "$root/$d" ] || [ ! -d "$root/usr/$d" ] || ln -s "usr/$d" "$root/$d"; done
  [ -e "$root/usr/share/asterisk/sounds/en" ] || ln -s en_US_f_Allison "$root/usr/share/asterisk/sounds/en"
  ld=$(cd "$tree" && ls root/usr/lib/$multiarch/ld-linux-*.so.? root/lib/$multiarch/ld-linux-*.so.? 2>/dev/null | head -n1)
  f=$(cd "$tree" && find root -name app_dial.so | head -n1)
  [ -n "$ld" ] && [ -n "$f" ] || { echo "asterisk: the packages hold no ld.so or no app_dial.so" >&2; return 1; }
  ln -sfn "$(dirname "$f")" "$tree/modules"
  for p in usr/sbin/asterisk usr/bin/openssl; do
    # --argv0 (glibc >= 2.33): `core restart` re-executes argv[0], which must be this script again.
    cat >"$tree/bin/$(basename "$p")" <<C
#!/bin/sh
me=\$(readlink -f "\$0") && top=\${me%/bin/*} && root=\$top/root
argv0="$("$tree/$ld" --help 2>/dev/null | grep -- --argv0 >/dev/null && echo yes || true)"
exec "\$top/$ld" \${argv0:+--argv0 "\$me"} --inhibit-cache \\
  --library-path "\$root/usr/lib/$multiarch:\$root/lib/$multiarch:\$root/usr/lib" "\$root/$p" "\$@"
C
    chmod +x "$tree/bin/$(basename "$p")"
  done
}

check() { # SUITE: every module that modules.conf loads finds its libraries inside the tree
  local suite=$1 bad=0 m root=$tree/root
  local libs=$root/usr/lib/$multiarch:$root/lib/$multiarch:$root/usr/lib
  say "checking the modules"
  for m in "$root/usr/sbin/asterisk" $(sed -n "s#^load = \([^ ]*\).*#$tree/modules/\1#p" "$here/modules.conf"); do
    # 16 lacks some modules by design; the configuration leaves out what is not there
    [ -f "$m" ] || { [ "$suite" != sid ] || { echo "missing $m" >&2; bad=1; }; continue; }
    if "$tree/$ld" --inhibit-cache --library-path "$libs" --list "$m" 2>&1 | grep -E 'not found|cannot open|=> /' | grep -v "=> $root/" >&2; then
      echo "  needed by $m" >&2
      bad=1
    fi
  done
  return $bad
}

try() { # SUITE: 0 when $tree holds a working Asterisk
  local suite=$1
  fetch "$suite" && unpack && check "$suite" && return 0
  [ -z "${FULL:-}" ] || return 1
  say "the lean set does not do for $suite; taking the whole closure"
  FULL=1
  fetch "$suite" && unpack && check "$suite" && return 0
  FULL=
  return 1
}

tmp=$(mktemp -d)
tree=$dest.new.$$
trap 'rm -rf -- "$tmp" "$tree"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$(dirname "$dest")"
done=
if [ -f "$debs/packages.lock" ]; then
  # a lock that does not name every .deb there could let one in unseen
  if (cd "$debs" && sha256sum --quiet -c packages.lock && [ "$(ls -- *.deb | sort)" = "$(awk '{print $2}' packages.lock | sort)" ]); then
    say "using the packages in $debs (their sha256 fit packages.lock)"
    suite=sid
    ls "$debs" | grep -q '^asterisk_1%3a16\.' && suite=bullseye
    if unpack && check "$suite"; then done=$suite; else say "the packages in $debs do not make a working Asterisk; fetching them anew"; fi
  else
    say "the packages in $debs do not fit packages.lock; fetching them anew"
  fi
fi
if [ -z "$done" ]; then
  case ${SUITE:-auto} in auto) suites="sid bullseye" ;; *) suites=$SUITE ;; esac
  for suite in $suites; do
    if try "$suite"; then
      done=$suite
      break
    fi
    say "Debian $suite did not give a working Asterisk"
  done
fi
[ -n "$done" ] || die "no Asterisk could be installed (tried: ${suites:-}). Is the mirror reachable ('apt-get update')? With packages from elsewhere: DEBS=DIR"
version=$("$tree/bin/asterisk" -V) || die "the installed Asterisk does not start"
rm -rf -- "$dest"
mv "$tree" "$dest"
say "$version is in $dest ($(du -sh "$dest" | cut -f1))"
