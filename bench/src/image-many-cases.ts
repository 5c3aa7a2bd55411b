/** Many exports on one service: how fast they are listed, and what each costs in memory. */
import { readFileSync, readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { missing, openImages } from "./image-fixture.js";
import type { ImageServer } from "./image-fixture.js";
import { answersPerSecond } from "./load.js";
import { alternate, figure, measuredUnless, median } from "./measure.js";

const MANY = 500;
const CALLERS = 8;
const ROUNDS = 5;
const SECONDS = 2;
const KB_OF_MB = 1024;

/** Runs with so many at a time. */
async function each(count: number, act: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const caller = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await act(next - 1);
    }
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
}

/** The server and the processes that it keeps; daemons are not among them. */
function supervisorMB({ server: { process: child } }: ImageServer): number {
  const parentOf = (pid: string): number => Number(statusOf(pid, "PPid"));
  const own = readdirSync("/proc").filter(
    (pid) => /^\d+$/.test(pid) && (Number(pid) === child.pid || parentOf(pid) === child.pid),
  );
  return own.reduce((sum, pid) => sum + Number(statusOf(pid, "VmRSS")), 0) / KB_OF_MB;
}

function statusOf(pid: string, key: string): string {
  try {
    return (
      new RegExp(`^${key}:\\s+(\\d+)`, "m").exec(
        readFileSync(`/proc/${pid}/status`, "utf8"),
      )?.[1] ?? "0"
    );
  } catch {
    // It has ended.
    return "0";
  }
}

/** What the daemons take, shared pages counted in parts. */
function daemonsMB(folder: string): number {
  const sizes = readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const args = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      if (!args.startsWith("qemu-storage-daemon") || !args.includes(`${folder}/`)) return [];
      const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
      return [Number(/^Pss:\s+(\d+)/m.exec(rollup)?.[1])];
    } catch {
      return [];
    }
  });
  return sizes.reduce((sum, one) => sum + one, 0) / KB_OF_MB;
}

function lists(images: ImageServer, path: string): () => Promise<number> {
  const { url: socketPath } = images.server;
  return () => answersPerSecond({ url: `http://localhost${path}`, socketPath, seconds: SECONDS });
}

export const imageMany = measuredUnless(
  () => missing("qemu-img", "qemu-storage-daemon"),
  async (say) => {
    const images = await openImages();
    const ids: string[] = [];
    await each(MANY, async () => ids.push(await images.volume("raw")));
    // What a first export loads is no growth.
    await images.remove((await images.add(ids[0] ?? "")).id);
    await sleep(1000);
    const before = supervisorMB(images);
    await each(MANY, (index) => images.add(ids[index] ?? "", { writable: true }));
    await sleep(1000);
    const perExport = (supervisorMB(images) - before) / MANY;
    const daemons = daemonsMB(images.folder);
    say(`a daemon takes ${(daemons / MANY).toFixed(1)} MB, the supervisor ${perExport.toFixed(3)}`);
    const { ratio, ...sides } = await alternate(
      ROUNDS,
      lists(images, "/exports/image"),
      lists(images, "/volumes/image?attachments=1"),
    );
    const [ours, theirs] = [sides.ours, sides.theirs].map((all) => Math.round(median(all)));
    say(`${MANY} exports listed ${ours}/s, ${MANY} volumes ${theirs}/s`);
    await images.stop();
    return [
      figure(
        `${MANY} exports: list, over the list of as many volumes with their attachments`,
        ratio,
        0.8,
        "higher",
      ),
      figure(`${MANY} exports: memory of the supervisor for each, MB`, perExport, 1, "lower"),
    ];
  },
);
