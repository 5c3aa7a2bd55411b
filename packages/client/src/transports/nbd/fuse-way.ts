/** The way for a kernel without NBD: the daemon shows the disk as a file by FUSE, and a loop device is over it. */
import { stat } from "node:fs/promises";
import { placesOf } from "../../executor/executor.js";
import type { ExecutorContext } from "../../executor/executor.js";
import { loopsOn } from "../loop.js";
import type { Deadline } from "../transport.js";
import { mountsOver, NODE, plain } from "./daemon.js";
import { tellDaemon } from "./monitor.js";
import type { Way } from "./way.js";

export function fuseWay(context: ExecutorContext): Way {
  const { exec } = context;
  const { sys } = placesOf(context);
  const within = (deadline: Deadline, mostMs: number) => ({
    signal: deadline.signal,
    timeoutMs: deadline.left(mostMs),
  });
  return {
    name: "daemon",
    async missing() {
      return undefined;
    },
    argumentsFor({ disk }, { isReadOnly }) {
      const write = isReadOnly ? "off" : "on";
      const file = `mountpoint=${plain(disk)},writable=${write},growable=off,allow-other=off`;
      return ["--export", `type=fuse,id=disk,node-name=${NODE},${file}`];
    },
    isOpen: async (place) => (await mountsOver(place)) > 0,
    devices: ({ disk }) => loopsOn(sys, disk),
    async up({ disk }, { isReadOnly }, deadline) {
      const readOnly = isReadOnly ? ["--read-only"] : [];
      await exec(
        "losetup",
        ["--find", "--direct-io=on", ...readOnly, "--", disk],
        within(deadline, 15_000),
      );
    },
    async down(device, deadline) {
      await exec("losetup", ["--detach", `/dev/${device}`], within(deadline, 60_000));
    },
    async grow({ disk, monitor }, _door, device, deadline) {
      // The daemon learns the size when it comes to the export anew, which it does with its next request.
      const read = [`if=${disk}`, "of=/dev/null", "iflag=direct", "bs=4096", "count=1"];
      await exec("dd", read, within(deadline, 15_000));
      // It asks for none that differs, and looks.
      const { size } = await stat(disk);
      await tellDaemon(monitor, "block_resize", { "node-name": NODE, size });
      // The kernel remembers a file's size for a second, and a loop device takes what it remembers.
      const look = ["--cached=never", "--format=%s", "--", disk];
      await exec("stat", look, within(deadline, 15_000));
      await exec("losetup", ["--set-capacity", `/dev/${device}`], within(deadline, 15_000));
      return true;
    },
  };
}
