/** Makes the server of a machine wait in one of its changes of LVM, so that a test can end it there. */
import type { Machine } from "./machine.js";

const FOLDER = "/run/lvm-hold";

/** Reports are not held: they are asked for at any time. */
const TOOLS = ["lvm", "lvcreate", "lvchange", "lvextend", "lvresize", "lvremove", "lvconvert"];

const SCRIPT = `#!/bin/bash
# Counts the changes since a hold was asked for, and waits at the one that was named.
name=$(basename "$0")
cd ${FOLDER} 2>/dev/null || exec /sbin/$name "$@"
input=
[ $# -gt 0 ] || input=$(cat)
run() { if [ $# -gt 0 ]; then /sbin/$name "$@"; else /sbin/$name <<<"$input"; fi; }
echo "$name $* \${input//$'\\n'/;}" >> all
at=$(cat at 2>/dev/null)
[ "$(wc -l < all)" = "\${at:-0}" ] || { run "$@"; exit; }
rm at
[ "$(cat when)" = before ] || run "$@"
touch held
exec sleep 600
`;

export async function installLvmHold(machine: Machine): Promise<void> {
  for (const tool of TOOLS) await machine.write(`/usr/local/sbin/${tool}`, SCRIPT, "755");
}

/** @param at which of the following changes is held, from 1 */
export async function holdLvm(
  machine: Machine,
  at: number,
  when: "before" | "after",
): Promise<void> {
  await machine.run(
    `rm -rf ${FOLDER} && mkdir ${FOLDER} && cd ${FOLDER} && : > all && echo ${at} > at && echo ${when} > when`,
  );
}

export async function isLvmHeld(machine: Machine): Promise<boolean> {
  return (await machine.attempt(`test -e ${FOLDER}/held`)).code === 0;
}

/** @returns the changes since it was asked for, and asks for no more */
export async function endLvmHold(machine: Machine): Promise<string> {
  return machine.run(`cat ${FOLDER}/all; rm -rf ${FOLDER}`);
}
