/** Who uses a file that FUSE shows: the daemon cannot tell. @see proc(5) */
import { loopsOver } from "../../core/device-users.js";
import { entriesOf, linkOf, textOf } from "../../core/kernel-text.js";

/** A file by its path; or, once its mount was taken out of the tree, by the id of that mount. */
export interface Sought {
  readonly path: string;
  readonly mountIDs: readonly number[];
}

/** Processes that have it open, and loop devices, in words. */
export function usersOf({ path, mountIDs }: Sought): readonly string[] {
  const loops = loopsOver(path).map((name) => `the loop device /dev/${name}`);
  const processes = entriesOf("/proc").filter((name) => /^\d+$/.test(name));
  const isOpenIn = (pid: string): boolean =>
    entriesOf(`/proc/${pid}/fd`).some((fd) => {
      if (linkOf(`/proc/${pid}/fd/${fd}`) === path) return true;
      if (mountIDs.length === 0) return false;
      const id = /^mnt_id:\s+(\d+)/m.exec(textOf(`/proc/${pid}/fdinfo/${fd}`))?.[1];
      return id !== undefined && mountIDs.includes(Number(id));
    });
  return [
    ...loops,
    ...processes.filter(isOpenIn).map((pid) => `process ${pid} (${textOf(`/proc/${pid}/comm`)})`),
  ];
}

/** Whether a loop device still shows anything. */
export function isLoopSet(name: string): boolean {
  return textOf(`/sys/block/${name}/loop/backing_file`) !== "";
}
