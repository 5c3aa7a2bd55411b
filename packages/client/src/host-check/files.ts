/** Files that killed processes have left: half-written ones, locks of nobody, loop devices without their file. */
import { readdir, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as v from "valibot";
import { CommandError } from "../executor/exec.js";
import { placesOf } from "../executor/executor.js";
import { mountFolderOf } from "../host/mount-records.js";
import { pathPart } from "../host/path-part.js";
import { lockOfTarget } from "../transports/iscsi/login.js";
import { TEMPORARY } from "../transports/iscsi/node-record.js";
import { knownServices, readKnown } from "./known.js";
import type { Check, CheckOptions, Leftover } from "./leftover.js";
import { locked } from "./mounts.js";

/** A process that writes a file needs it for less. */
const OLD_MS = 60_000;

async function isOld(file: string): Promise<boolean> {
  const found = await stat(file).catch(() => undefined);
  return found !== undefined && Date.now() - found.mtimeMs > OLD_MS;
}

async function namesIn(folder: string): Promise<readonly string[]> {
  return readdir(folder).catch(() => []);
}

function temporary(what: string, about: string): Leftover {
  return {
    kind: "temporary-file",
    what,
    about,
    fix: async () => {
      await rm(what, { force: true });
      return "removed the file";
    },
  };
}

export const checkTemporaries: Check = async (options) => {
  const { libFolder } = options.executors;
  const found: Leftover[] = [];
  for (const { server, service } of await knownServices(options))
    for (const folder of [
      mountFolderOf(libFolder, server, service),
      join(libFolder, "connections", pathPart(server), pathPart(service)),
    ])
      for (const name of await namesIn(folder)) {
        const file = join(folder, name);
        if (name.endsWith(".json.tmp") && (await isOld(file)))
          found.push(temporary(file, "a record was being written when its process ended"));
      }
  for (const folder of placesOf(options.executors).iscsi)
    for (const name of await namesIn(folder)) {
      const file = join(folder, name);
      if (name.startsWith(TEMPORARY) && (await isOld(file)))
        found.push(
          temporary(
            file,
            "open-iscsi's record was being written when its process ended; it may hold a secret",
          ),
        );
    }
  return found;
};

/** Locks whose volume has no record left. One that is taken now stays. */
export const checkLocks: Check = async (options) => {
  const { libFolder } = options.executors;
  const { mounts, connections } = await readKnown(options);
  const needed = new Set([
    ...mounts.map(({ record, records }) => records.lockOf(record.volumeID)),
    ...connections.map((known) =>
      join(
        mountFolderOf(libFolder, known.server, known.service),
        `${pathPart(known.record.volumeID)}.lock`,
      ),
    ),
    ...connections.flatMap(({ record: { fields } }) =>
      fields["iqn"] === undefined ? [] : [lockOfTarget(libFolder, fields["iqn"])],
    ),
  ]);
  const folders = (await knownServices(options)).map(({ server, service }) =>
    mountFolderOf(libFolder, server, service),
  );
  const found: Leftover[] = [];
  for (const folder of [...folders, dirname(lockOfTarget(libFolder, "any"))]) {
    for (const name of await namesIn(folder)) {
      const file = join(folder, name);
      if (!name.endsWith(".lock") || needed.has(file) || !(await isOld(file))) continue;
      found.push(unusedLock(options, file));
    }
  }
  return found;
};

function unusedLock(options: CheckOptions, file: string): Leftover {
  return {
    kind: "lock-file",
    what: file,
    about: "its volume has no record on this host",
    // Whoever gives a lock back takes its file away.
    fix: async () => locked(options, file, async () => "removed the file"),
  };
}

const Loops = v.object({
  loopdevices: v.array(v.object({ name: v.string(), "back-file": v.nullish(v.string()) })),
});

/** Output of `losetup --list --json`; without loop devices it is empty. */
export function parseLosetup(
  text: string,
): readonly { readonly name: string; readonly file: string }[] {
  if (text.trim() === "") return [];
  return v
    .parse(Loops, JSON.parse(text))
    .loopdevices.map((one) => ({ name: one.name, file: one["back-file"] ?? "" }));
}

const DELETED = " (deleted)";

/** Loop devices over files of our own folder that are no more. */
export const checkLoops: Check = async ({ executors: { exec, libFolder }, signal }) => {
  const args = ["--list", "--json", "--output", "NAME,BACK-FILE"];
  const list = await exec("losetup", args, { signal }).catch((error: unknown) => {
    if (error instanceof CommandError) return { stdout: "" };
    throw error;
  });
  return parseLosetup(list.stdout)
    .filter(({ file }) => file.startsWith(`${libFolder}/`) && file.endsWith(DELETED))
    .map(({ name, file }) => ({
      kind: "loop-device",
      what: name,
      about: `its file ${file.slice(0, -DELETED.length)} was removed`,
      fix: async () => {
        await exec("losetup", ["--detach", name], { signal });
        return "detached it; it goes when its last user does";
      },
    }));
};
