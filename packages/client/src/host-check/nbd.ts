/** What connections by NBD have left: daemons, files and devices of no volume that this host is connected to. */
import { readdir, readlink, unlink } from "node:fs/promises";
import { basename, join } from "node:path";
import { placesOf } from "../executor/executor.js";
import { usersOf } from "../transports/block-use.js";
import { pidAt } from "../transports/nbd/daemon.js";
import { nbdPlaces, placeOfExport } from "../transports/nbd/place.js";
import { devicesAt, takeDown, wayAt } from "../transports/nbd/ways.js";
import { Deadline } from "../transports/transport.js";
import { readKnown } from "./known.js";
import type { Check, CheckOptions, Leftover } from "./leftover.js";
import { locked } from "./mounts.js";

const TAKE_DOWN_MS = 60_000;
const LINK = /^nbd-[\w.-]+$/;

export const checkNbd: Check = async (options) => {
  const { libFolder } = options.executors;
  const { connections } = await readKnown(options);
  const exports = connections.flatMap(({ record: { fields } }) =>
    fields["exporter"] === "nbd" ? [fields["export"] ?? ""] : [],
  );
  const known = new Set(exports.map((name) => placeOfExport(libFolder, name).folder));
  const found: Leftover[] = [];
  for (const place of await nbdPlaces(libFolder)) {
    const isBroken =
      known.has(place.folder) && (await wayAt(options.executors, place)) === undefined;
    if (known.has(place.folder) && !isBroken) continue;
    const { sys } = placesOf(options.executors);
    const devices = (await devicesAt(options.executors, place)).map(({ device }) => device);
    const users = (await Promise.all(devices.map((device) => usersOf(sys, device)))).flat();
    const leftover = {
      kind: "nbd-leftover",
      what: place.folder,
      about: isBroken
        ? "its storage daemon has ended, so the volume's device fails"
        : `it is the way to a volume that this host is not connected to${pidAt(place) === undefined ? "" : ", and its storage daemon runs"}`,
    } as const;
    if (users.length > 0)
      found.push({ ...leftover, instead: `it is used by ${users.join(", ")}: end that use first` });
    else
      found.push({
        ...leftover,
        fix: async () =>
          locked(options, `${place.folder}.lock`, async () => {
            const deadline = new Deadline({ signal: options.signal, timeoutMs: TAKE_DOWN_MS });
            const targets = new Set(devices.map((device) => `../../${device}`));
            const links = (await nbdLinks(options)).filter(({ target }) => targets.has(target));
            await takeDown(options.executors, place, basename(place.folder), deadline);
            for (const { path } of links) await unlink(path);
            return isBroken
              ? "took it down; the volume is connected anew when it is mounted"
              : "ended its daemon, and took down its device";
          }),
      });
  }
  return [...found, ...(await staleLinks(options, new Set(exports)))];
};

interface Link {
  readonly path: string;
  /** The export it is named after. */
  readonly name: string;
  readonly target: string;
}

async function nbdLinks(options: CheckOptions): Promise<readonly Link[]> {
  const folder = join(placesOf(options.executors).dev, "disk/by-id");
  const names = (await readdir(folder).catch(() => [])).filter((one) => LINK.test(one));
  return Promise.all(
    names.map(async (one) => {
      const path = join(folder, one);
      const target = await readlink(path).catch(() => "");
      return { path, name: one.slice("nbd-".length), target };
    }),
  );
}

/** Links that this client has made, to devices that are no more. */
async function staleLinks(
  options: CheckOptions,
  exports: ReadonlySet<string>,
): Promise<readonly Leftover[]> {
  const { executors } = options;
  const found: Leftover[] = [];
  for (const { path, name, target } of await nbdLinks(options)) {
    if (exports.has(name)) continue;
    // One that leads to anything else is not of this client's making.
    if (!/^\.\.\/\.\.\/(?:loop|nbd)\d+$/.test(target)) continue;
    const place = placeOfExport(executors.libFolder, name);
    if ((await devicesAt(executors, place)).length > 0) continue;
    found.push({
      kind: "nbd-leftover",
      what: path,
      about: `it names ${basename(target)} after an export that this host is not connected to`,
      fix: async () => {
        await unlink(path);
        return "removed the link";
      },
    });
  }
  return found;
}
