/** What is measured, and what it must reach. */
import { spawn, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { btrfsAgainstCommand } from "./btrfs-cases.js";
import { csiPlugin } from "./csi-cases.js";
import { csiStage } from "./csi-stage-cases.js";
import { dockerMount, dockerPlugin } from "./docker-cases.js";
import { seedVolumes, serve, serveReally, workFolder } from "./fixture.js";
import type { Served } from "./fixture.js";
import { imageAttach } from "./image-attach-cases.js";
import { imageConvert, imageExportAdd, imageIo } from "./image-cases.js";
import { imageMany } from "./image-many-cases.js";
import { imageNetwork } from "./image-network-cases.js";
import { answersPerSecond } from "./load.js";
import { alternate, figure, median } from "./measure.js";
import type { Figure, Say } from "./measure.js";

export interface Case {
  readonly name: string;
  /** Those of one group are measured together when that is named. */
  readonly group?: string;
  readonly run: (say: Say) => Promise<Figure[]>;
  /** Measured only when it is named: its limits are not reached yet, see docs/performance.md. */
  readonly isNamedOnly?: true;
}

const MANY = 10_000;
const ROUNDS = 5;
const SECONDS = 2;

const perSecond = (values: readonly number[]): string => `${Math.round(median(values))}/s`;

async function serveOurs(volumes: number): Promise<Served> {
  const folder = workFolder();
  seedVolumes(join(folder, "vfs"), volumes);
  return serve("serve-ours.js", [join(folder, "home"), join(folder, "vfs")]);
}

async function fetched(url: string): Promise<Buffer> {
  return Buffer.from(await (await fetch(url)).arrayBuffer());
}

/** Our answer to a path against a bare Koa that sends the same bytes. */
async function againstKoa(name: string, path: string, limit: number, say: Say): Promise<Figure[]> {
  const ours = await serveOurs(MANY);
  const file = join(workFolder(), "body");
  writeFileSync(file, await fetched(ours.url + path));
  const bare = await serve("serve-bare.js", [`${path}=${file}`]);
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    () => answersPerSecond({ url: ours.url + path, seconds: SECONDS }),
    () => answersPerSecond({ url: bare.url + path, seconds: SECONDS }),
  );
  say(`ours ${perSecond(sides.ours)}, bare Koa ${perSecond(sides.theirs)}`);
  await Promise.all([ours.stop(), bare.stop()]);
  return [figure(name, ratio, limit, "higher")];
}

async function creates(say: Say): Promise<Figure[]> {
  const ours = await serveOurs(0);
  const script = fileURLToPath(new URL("serve-lmdb.js", import.meta.url));
  const lmdb = spawn(process.execPath, [script, join(workFolder(), "lmdb")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const answers = createInterface({ input: lmdb.stdout })[Symbol.asyncIterator]();
  await answers.next();
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    () =>
      answersPerSecond({
        url: `${ours.url}/volumes/vfs`,
        seconds: SECONDS,
        method: "POST",
        body: '{"name":"bench","size":1}',
      }),
    async () => {
      lmdb.stdin.write(`${SECONDS * 1000}\n`);
      return Number((await answers.next()).value);
    },
  );
  lmdb.stdin.end();
  say(`creates ${perSecond(sides.ours)}, LMDB alone ${perSecond(sides.theirs)}`);
  await ours.stop();
  return [
    figure("create: 16 clients, journaled and synced, over LMDB one by one", ratio, 0.3, "higher"),
  ];
}

function residentMB({ process: { pid } }: Served): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

const READ_ALL = `
const fs = require("node:fs");
for (const name of fs.readdirSync(process.argv[1]))
  if (name.endsWith(".json")) fs.readFileSync(process.argv[1] + "/" + name);`;

function elapsed(act: () => void): number {
  const started = performance.now();
  act();
  return performance.now() - started;
}

async function startUp(say: Say): Promise<Figure[]> {
  const folder = workFolder();
  const root = join(folder, "vfs");
  seedVolumes(root, MANY);
  const memory: number[] = [];
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    async () => {
      const served = await serveReally(join(folder, "home"), root);
      memory.push(residentMB(served));
      await served.stop();
      return served.startMs;
    },
    async () => elapsed(() => spawnSync(process.execPath, ["-e", READ_ALL, join(root, "vol")])),
  );
  say(
    `start to ready ${median(sides.ours).toFixed(0)} ms, plain loop ${median(sides.theirs).toFixed(0)} ms`,
  );
  return [
    figure("10,000 volumes: start to ready, over a loop that reads the files", ratio, 3, "lower"),
    figure("10,000 volumes: resident memory, MB", median(memory), 160, "lower"),
  ];
}

async function commandLine(say: Say): Promise<Figure[]> {
  const ours = await serveOurs(10);
  const cli = fileURLToPath(new URL("../../packages/client/bin/libstorage.mjs", import.meta.url));
  const env = {
    ...process.env,
    LIBSTORAGE_HOST: ours.url.replace("http", "tcp"),
    LIBSTORAGE_SERVICE: "vfs",
    LIBSTORAGE_HOME: workFolder(),
  };
  const run = (args: readonly string[]): number => {
    const result = { status: 0 as number | null, stderr: "" };
    const ms = elapsed(() => {
      const { status, stderr } = spawnSync(process.execPath, args, { env, encoding: "utf8" });
      Object.assign(result, { status, stderr });
    });
    if (result.status !== 0) throw new Error(`${args.join(" ")}: ${result.stderr}`);
    return ms;
  };
  const several = async (args: readonly string[]): Promise<number> =>
    median(Array.from({ length: 7 }, () => run(args)));
  const { ratio, ...sides } = await alternate(
    ROUNDS,
    () => several([cli, "volume", "ls"]),
    () => several(["-e", "0"]),
  );
  say(
    `volume ls ${median(sides.ours).toFixed(0)} ms, node -e 0 ${median(sides.theirs).toFixed(0)} ms`,
  );
  await ours.stop();
  return [figure("libstorage volume ls, over node -e 0", ratio, 2.5, "lower")];
}

/** Attaches and detaches by turns, so that every request changes something. */
async function attachesPerSecond(url: string): Promise<number> {
  const until = performance.now() + SECONDS * 1000;
  const started = performance.now();
  let count = 0;
  const headers = { "Libstorage-Instanceid": "vfs=bench" };
  for (let number = 0; performance.now() < until; number = (number + 1) % 50)
    for (const action of ["attach", "detach"]) {
      const id = `vfs-${String(number).padStart(3, "0")}`;
      const answer = await fetch(`${url}/volumes/vfs/${id}?${action}`, { method: "POST", headers });
      await answer.arrayBuffer();
      if (answer.status >= 300) throw new Error(`${action} of ${id}: ${answer.status}`);
      count += 1;
    }
  return (count * 1000) / (performance.now() - started);
}

async function growth(say: Say): Promise<Figure[]> {
  const [few, many] = [await serveOurs(100), await serveOurs(MANY)];
  const inspect = await alternate(
    ROUNDS,
    () =>
      answersPerSecond({ url: `${few.url}/volumes/vfs/vfs-050?attachments=1`, seconds: SECONDS }),
    () =>
      answersPerSecond({ url: `${many.url}/volumes/vfs/vfs-050?attachments=1`, seconds: SECONDS }),
  );
  say(`inspect ${perSecond(inspect.ours)} of 100, ${perSecond(inspect.theirs)} of 10,000`);
  const attach = await alternate(
    ROUNDS,
    () => attachesPerSecond(few.url),
    () => attachesPerSecond(many.url),
  );
  say(`attach, detach ${perSecond(attach.ours)} of 100, ${perSecond(attach.theirs)} of 10,000`);
  await Promise.all([few.stop(), many.stop()]);
  return [
    figure("inspect: time at 10,000 volumes over time at 100", inspect.ratio, 1.3, "lower"),
    figure("attach: time at 10,000 volumes over time at 100", attach.ratio, 1.3, "lower"),
  ];
}

export const CASES: readonly Case[] = [
  {
    name: "inspect",
    run: (say) =>
      againstKoa(
        "inspect one of 10,000 volumes, over a bare Koa route",
        "/volumes/vfs/vfs-5000",
        0.6,
        say,
      ),
  },
  {
    name: "list",
    run: (say) =>
      againstKoa(
        "list 10,000 volumes, over a bare Koa with a ready buffer",
        "/volumes/vfs",
        0.6,
        say,
      ),
  },
  { name: "create", run: creates },
  { name: "start", run: startUp },
  { name: "cli", run: commandLine },
  { name: "growth", run: growth },
  { name: "docker", run: dockerPlugin },
  { name: "docker-mount", run: dockerMount, isNamedOnly: true },
  { name: "csi", run: csiPlugin },
  { name: "csi-stage", run: csiStage },
  { name: "btrfs", run: btrfsAgainstCommand, isNamedOnly: true },
  { name: "images-io", group: "images", run: imageIo },
  { name: "images-network", group: "images", run: imageNetwork, isNamedOnly: true },
  { name: "images-add", group: "images", run: imageExportAdd },
  { name: "images-many", group: "images", run: imageMany },
  { name: "images-convert", group: "images", run: imageConvert },
  { name: "images-attach", group: "images", run: imageAttach },
];
