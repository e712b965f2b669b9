#!/bin/sh
# Runs a program on an emulated board: qemu.sh BOARD IMAGE [ARGUMENT...]. The arguments are passed to QEMU. The weights file is
# LENET_WEIGHTS or, if that is not set, data/lenet.weights. It is loaded at the address in the board's memory.x.
set -eu
here=$(dirname "$0")
board=$1 image=$2
shift 2
weights=${LENET_WEIGHTS:-$here/../data/lenet.weights}
address=$(sed -n 's/^ *WEIGHTS *: ORIGIN = \(0x[0-9a-f]*\),.*/\1/p' "$here/boards/$board/memory.x")
exec qemu-system-arm -machine "$board" -display none -serial null -monitor none \
    -semihosting-config enable=on,target=native \
    -device "loader,file=$weights,addr=$address,force-raw=on" "$@" -kernel "$image"
