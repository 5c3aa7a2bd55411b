/** Makes the server of a machine wait in one of its changes by commands, so that a test can do something there. */
import type { Machine } from "./machine.js";
import type { When } from "./remote-host.js";

export interface HeldTools {
  readonly tools: readonly string[];
  /** An extended regular expression for the commands that change nothing: they may be run at any time. */
  readonly reports?: string;
}

export const LVM: HeldTools = {
  tools: ["lvm", "lvcreate", "lvchange", "lvextend", "lvresize", "lvremove", "lvconvert"],
};

const FOLDER = "/run/command-hold";

const script = (reports: string): string => `#!/bin/bash
# Counts the changes since a hold was asked for, and waits at the one that was named.
name=$(basename "$0")
tool=$(PATH=/usr/sbin:/usr/bin:/sbin:/bin; command -v "$name")
reports='${reports}'
[[ "$name $*" =~ $reports ]] && exec "$tool" "$@"
cd ${FOLDER} 2>/dev/null || exec "$tool" "$@"
input=
[ $# -gt 0 ] || input=$(cat)
run() { if [ $# -gt 0 ]; then "$tool" "$@"; else "$tool" <<<"$input"; fi; }
# Until it is released, or nobody wants it any more.
wait_here() { touch held; until [ -e go ]; do [ -e held ] || exit 1; sleep 0.1; done; }
echo "$name $* \${input//$'\\n'/;}" >> all
at=$(cat at 2>/dev/null)
[ "$(wc -l < all)" = "\${at:-0}" ] || { run "$@"; exit; }
rm at
if [ "$(cat when)" = before ]; then wait_here; run "$@"; exit; fi
run "$@"
code=$?
wait_here
exit $code
`;

export class CommandHold {
  readonly #machine: Machine;

  private constructor(machine: Machine) {
    this.#machine = machine;
  }

  static async install(
    machine: Machine,
    { tools, reports = "^$" }: HeldTools,
  ): Promise<CommandHold> {
    for (const tool of tools)
      await machine.write(`/usr/local/sbin/${tool}`, script(reports), "755");
    return new CommandHold(machine);
  }

  /** @param at which of the following changes is held, from 1 */
  async next(at: number, when: When): Promise<void> {
    await this.#machine.run(
      `rm -rf ${FOLDER} && mkdir ${FOLDER} && cd ${FOLDER} && : > all && echo ${at} > at && echo ${when} > when`,
    );
  }

  async isHeld(): Promise<boolean> {
    return (await this.#machine.attempt(`test -e ${FOLDER}/held`)).code === 0;
  }

  /** What is held goes on. */
  async release(): Promise<void> {
    await this.#machine.run(`touch ${FOLDER}/go`);
  }

  /** @returns the changes since it was asked for, and asks for no more; what is held fails */
  async end(): Promise<readonly string[]> {
    return (await this.#machine.run(`cat ${FOLDER}/all; rm -rf ${FOLDER}`)).split("\n");
  }
}
