/** btrfs through the API against the `btrfs` command itself, both one after another on one loop device. */
import { execFile, spawnSync } from "node:child_process";
import { Agent, request } from "node:http";
import { mkdirSync, mkdtempSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { onEnd, serveReally, workFolder } from "./fixture.js";
import { alternate, figure, median, ratioOfBest } from "./measure.js";
import type { Figure, Say } from "./measure.js";

/** Short ones, and many: what else the host does then falls on both sides. */
const ROUNDS = 21;
const OPERATIONS = 8;
const SNAPSHOTS = 1000;
const SIZE_MIB = 4096;

const execute = promisify(execFile);
const btrfs = (...args: string[]): Promise<unknown> => execute("btrfs", args);

/** @returns where a new btrfs is mounted, or why there can be none */
function mountLoop(): { readonly folder: string } | string {
  const base = workFolder();
  const image = join(base, "image");
  const folder = join(base, "mounted");
  writeFileSync(image, "");
  truncateSync(image, SIZE_MIB * 1024 ** 2);
  mkdirSync(folder);
  for (const [tool = "", ...args] of [
    ["mkfs.btrfs", "-q", image],
    ["mount", "-o", "loop", image, folder],
  ]) {
    const { status, error, stderr } = spawnSync(tool, args, { encoding: "utf8" });
    if (status !== 0) return `${tool}: ${error?.message ?? stderr}`;
  }
  onEnd(() => spawnSync("umount", ["--lazy", folder]));
  return { folder };
}

async function timed(count: number, act: (number: number) => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let number = 0; number < count; number += 1) {
    const started = performance.now();
    await act(number);
    times.push(performance.now() - started);
  }
  return median(times);
}

/** The service as programs of its host reach it, one request after another. */
function apiOf(socketPath: string) {
  // A plain client: what `fetch` adds to each request is not the server's.
  const agent = new Agent({ keepAlive: true });
  const call = (method: string, path: string, body?: object): Promise<{ id: string }> =>
    new Promise((resolve, reject) => {
      const asking = request({ socketPath, path: `/${path}`, method, agent }, (answer) => {
        let text = "";
        answer.setEncoding("utf8").on("data", (part: string) => (text += part));
        answer.on("error", reject).on("end", () => {
          if ((answer.statusCode ?? 0) >= 300) reject(new Error(`${method} ${path}: ${text}`));
          else resolve(text === "" ? { id: "" } : (JSON.parse(text) as { id: string }));
        });
      });
      asking.on("error", reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
  return {
    create: () => call("POST", "volumes/btrfs", { name: "bench", size: 1 }),
    remove: (id: string) => call("DELETE", `volumes/btrfs/${id}`),
    snapshot: (id: string) =>
      call("POST", `volumes/btrfs/${id}?snapshot`, { snapshotName: "bench" }),
    snapshotRemove: (id: string) => call("DELETE", `snapshots/btrfs/${id}`),
  };
}

export async function btrfsAgainstCommand(say: Say): Promise<Figure[]> {
  const loop = mountLoop();
  if (typeof loop === "string") {
    say(`not measured: no btrfs on a loop device: ${loop}`);
    return [];
  }
  const { folder } = loop;
  const ours = await serveReally(workFolder(), join(folder, "api"), "btrfs");
  const api = apiOf(ours.url);
  const figures: Figure[] = [];
  const compare = async (
    name: string,
    through: () => Promise<number>,
    direct: () => Promise<number>,
  ): Promise<void> => {
    const sides = await alternate(ROUNDS, through, direct);
    const rates = (times: readonly number[]): number[] => times.map((time) => 1 / time);
    const ratio = ratioOfBest({ ours: rates(sides.theirs), theirs: rates(sides.ours) });
    say(
      `${name} ${median(sides.ours).toFixed(1)} ms, command ${median(sides.theirs).toFixed(1)} ms`,
    );
    figures.push(figure(`btrfs ${name} through the API, over the command`, ratio, 1.3, "lower"));
  };
  const names = (): string => mkdtempSync(join(folder, "direct-"));
  const made: string[] = [];
  // A subvolume that is made is only on the disk after a sync, as ours is when it is answered.
  const direct = async (to: string, number: number): Promise<void> => {
    await btrfs("subvolume", "create", `${to}/${number}`);
    await btrfs("filesystem", "sync", to);
  };
  await compare(
    "create",
    () => timed(OPERATIONS, async () => made.push((await api.create()).id)),
    () => {
      const to = names();
      return timed(OPERATIONS, (number) => direct(to, number));
    },
  );
  const volume = (await api.create()).id;
  const source = join(folder, "source");
  await btrfs("subvolume", "create", source);
  const snapshots: string[] = [];
  const directSnapshots: string[] = [];
  await compare(
    "snapshot",
    () => timed(OPERATIONS, async () => snapshots.push((await api.snapshot(volume)).id)),
    () => {
      const to = names();
      return timed(OPERATIONS, async (number) => {
        await btrfs("subvolume", "snapshot", "-r", source, `${to}/${number}`);
        directSnapshots.push(`${to}/${number}`);
      });
    },
  );
  await compare(
    "remove",
    () => timed(OPERATIONS, () => api.remove(made.pop() ?? "")),
    () =>
      timed(OPERATIONS, () =>
        btrfs("subvolume", "delete", "--commit-after", directSnapshots.pop() ?? ""),
      ),
  );
  for (const id of snapshots) await api.snapshotRemove(id);
  figures.push(await growth(() => api.snapshot(volume), say));
  await ours.stop();
  return figures;
}

async function growth(snapshot: () => Promise<unknown>, say: Say): Promise<Figure> {
  const first = await timed(100, snapshot);
  await timed(SNAPSHOTS - 200, snapshot);
  const last = await timed(100, snapshot);
  say(
    `of ${SNAPSHOTS} snapshots the first take ${first.toFixed(1)} ms, the last ${last.toFixed(1)}`,
  );
  const name = `${SNAPSHOTS} btrfs snapshots of one volume: the last 100 over the first 100`;
  return figure(name, last / first, 1.5, "lower");
}
