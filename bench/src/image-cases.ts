/** Image volumes and their exports through the server, against QEMU's own programs by hand. */
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import {
  command,
  daemonByHand,
  daemonFolder,
  endDaemon,
  exportByHand,
  missing,
  openImages,
  timed,
} from "./image-fixture.js";
import type { ImageServer } from "./image-fixture.js";
import { alternate, figure, measuredUnless, median, ratioOfBest } from "./measure.js";
import type { Figure, Say, Sides } from "./measure.js";

type Format = "raw" | "qcow2";

/** Short ones, and many: what else the host does then falls on both sides. */
const IO_ROUNDS = 11;
const IO_MS = 500;
/** The part of a volume that is read and written: it fits into memory. */
const AREA_MIB = 256;

/** What fio is told to do, and which of its numbers counts. */
const PATTERNS = [
  { name: "sequential write", rw: "write", bs: "256k", depth: 8 },
  { name: "sequential read", rw: "read", bs: "256k", depth: 8 },
  { name: "4 KiB random write", rw: "randwrite", bs: "4k", depth: 16 },
  { name: "4 KiB random read", rw: "randread", bs: "4k", depth: 16 },
] as const;
type Pattern = (typeof PATTERNS)[number];

interface FioReport {
  readonly jobs: readonly Record<"read" | "write", { readonly iops: number }>[];
}

/** @param ms undefined: the area once */
async function fio(uri: string, { rw, bs, depth }: Pattern, ms?: number): Promise<number> {
  const how = ms === undefined ? [] : ["--time_based", `--runtime=${ms}ms`];
  const text = await command(
    "fio",
    "--name=bench",
    "--ioengine=nbd",
    "--output-format=json",
    `--uri=${uri}`,
    `--rw=${rw}`,
    `--bs=${bs}`,
    `--iodepth=${depth}`,
    `--size=${AREA_MIB}M`,
    ...how,
  );
  // Its engine says first that it is connected.
  const [job] = (JSON.parse(text.slice(text.indexOf("{"))) as FioReport).jobs;
  return job?.[rw.endsWith("read") ? "read" : "write"].iops ?? Number.NaN;
}

async function through(images: ImageServer, format: Format, say: Say): Promise<Figure[]> {
  const volumeID = await images.volume(format);
  const door = await images.add(volumeID, { writable: true, transport: "unix" });
  const folder = daemonFolder();
  const image = join(folder, `disk.${format}`);
  await command("qemu-img", "create", "-q", "-f", format, image, "1G");
  const socket = join(folder, "nbd.sock");
  const pid = await daemonByHand(folder, exportByHand(format, image, socket));
  const uris = [door.deviceName, `nbd+unix:///by-hand?socket=${socket}`] as const;
  // Every block has its place from now on, on both sides.
  for (const uri of uris) await fio(uri, PATTERNS[0]);
  const figures: Figure[] = [];
  for (const pattern of PATTERNS) {
    const sides = await alternate(
      IO_ROUNDS,
      () => fio(uris[0], pattern, IO_MS),
      () => fio(uris[1], pattern, IO_MS),
    );
    const [ours, theirs] = [sides.ours, sides.theirs].map((all) => Math.round(median(all)));
    say(`${format}, ${pattern.name}: ${ours}/s, by hand ${theirs}/s`);
    const name = `NBD over a Unix socket, ${format}, ${pattern.name}, over a daemon by hand`;
    figures.push(figure(name, ratioOfBest(sides), 0.97, "higher"));
  }
  await images.remove(door.id);
  await endDaemon(pid);
  return figures;
}

/** An export that this server made, against a storage daemon started by hand, over a Unix socket. */
export const imageIo = measuredUnless(
  () => missing("fio", "qemu-img", "qemu-storage-daemon"),
  async (say) => {
    const images = await openImages();
    const figures = [
      ...(await through(images, "raw", say)),
      ...(await through(images, "qcow2", say)),
    ];
    await images.stop();
    return figures;
  },
);

const ADD_ROUNDS = 15;
const ADD_LIMIT_MS = 30;

/** The middle of what ours takes more, round by round. */
function moreOf({ ours, theirs }: Pick<Sides, "ours" | "theirs">): number {
  return median(ours.map((ms, round) => ms - (theirs[round] ?? Number.NaN)));
}

/** From the request to the answer, against the daemon's command until it is in the background. */
export const imageExportAdd = measuredUnless(
  () => missing("qemu-img", "qemu-storage-daemon"),
  async (say) => {
    const images = await openImages();
    const volumeID = await images.volume("qcow2");
    const folder = daemonFolder();
    const image = join(folder, "disk.qcow2");
    await command("qemu-img", "create", "-q", "-f", "qcow2", image, "1G");
    const add = async (): Promise<number> => {
      let id = "";
      const ms = await timed(async () => {
        ({ id } = await images.add(volumeID, { writable: true, transport: "unix" }));
      });
      await images.remove(id);
      return ms;
    };
    const byHand = async (): Promise<number> => {
      const started = performance.now();
      const pid = await daemonByHand(
        folder,
        exportByHand("qcow2", image, join(folder, "nbd.sock")),
      );
      const ms = performance.now() - started;
      await endDaemon(pid);
      return ms;
    };
    const sides = await alternate(ADD_ROUNDS, add, byHand);
    const [ours, theirs] = [sides.ours, sides.theirs].map((all) => median(all).toFixed(1));
    say(`export added in ${ours} ms, daemon by hand in ${theirs} ms`);
    await images.stop();
    const name = "adding an export: milliseconds more than a daemon started by hand";
    return [figure(name, moreOf(sides), ADD_LIMIT_MS, "lower")];
  },
);

const CONVERT_ROUNDS = 5;
const CONTENT_MIB = 512;

/** By hand as by the server: the new image is written beside the old one, is on the disk, and takes its place. */
async function convertByHand(folder: string, from: Format, to: Format): Promise<void> {
  const [before, next] = [join(folder, `disk.${from}`), join(folder, `next.${to}`)];
  await command("qemu-img", "convert", "-p", "-f", from, "-O", to, before, next);
  await command("sync", next);
  renameSync(next, join(folder, `disk.${to}`));
  rmSync(before);
}

/** Both until the new image is on the disk. */
export const imageConvert = measuredUnless(
  () => missing("qemu-img", "qemu-storage-daemon", "qemu-io"),
  async (say) => {
    const images = await openImages();
    const folder = daemonFolder();
    const volumeID = await images.volume("raw");
    const byHand = join(folder, "disk.raw");
    await command("qemu-img", "create", "-q", "-f", "raw", byHand, "1G");
    const fill = ["-c", `write -P 7 0 ${CONTENT_MIB}M`, "-c", "flush"];
    for (const image of [images.diskOf(volumeID, "raw"), byHand])
      await command("qemu-io", "-f", "raw", ...fill, image);
    const convert = (format: Format): Promise<unknown> =>
      images.call("POST", `/volumes/image/${volumeID}?convert`, { format });
    const figures: Figure[] = [];
    for (const [from, to] of [
      ["raw", "qcow2"],
      ["qcow2", "raw"],
    ] as const) {
      // There and back, of which one way is measured.
      const { ratio, ...sides } = await alternate(
        CONVERT_ROUNDS,
        async () => {
          await command("sync");
          if (from === "qcow2") await convert("qcow2");
          const ms = await timed(() => convert(to));
          if (from === "raw") await convert("raw");
          return ms;
        },
        async () => {
          await command("sync");
          if (from === "qcow2") await convertByHand(folder, "raw", "qcow2");
          const ms = await timed(() => convertByHand(folder, from, to));
          if (from === "raw") await convertByHand(folder, "qcow2", "raw");
          return ms;
        },
      );
      const [ours, theirs] = [sides.ours, sides.theirs].map((all) => Math.round(median(all)));
      say(`${from} to ${to}: ${ours} ms, qemu-img convert and sync ${theirs} ms`);
      const name = `convert ${CONTENT_MIB} MiB from ${from} to ${to}, over qemu-img convert and sync`;
      figures.push(figure(name, ratio, 1.1, "lower"));
    }
    await images.stop();
    return figures;
  },
);
