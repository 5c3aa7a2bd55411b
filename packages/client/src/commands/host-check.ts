import { StorageError } from "@libstorage/model";
import type { Command } from "../cli/command.js";
import type { Session } from "../cli/session.js";
import type { Attachments, CheckOptions, Finding, KnownService } from "../host-check/index.js";

const HEAD = ["STATE", "KIND", "WHAT", "ABOUT", "NEXT"];

export const command: Command = {
  about: "Find what a crash has left on this host, and clean it",
  args: [],
  options: { fix: { type: "boolean", about: "clean what is safe to clean" } },
  notes: [
    "Looks for mounts and records that do not go together, connections that this host has no right to,",
    "devices and sessions of no volume, NFS mounts that are stale, and files of killed processes.",
    "What is not provably this client's own is shown and left alone, and so is what is in use.",
    "Exits with 0 if nothing is left, and with 1 if something is.",
  ],
  async run(given, session) {
    const isFixing = given.flag("fix");
    const { checkHost } = await import("../host-check/index.js");
    const findings = await checkHost(await optionsOf(session), isFixing);
    session.table({ findings }, HEAD, findings.map(rowOf));
    const left = findings.filter(({ state }) => state !== "fixed");
    if (left.length === 0) return;
    const byHand = left.filter(({ state }) => state === "left").length;
    throw new StorageError(
      "failed-precondition",
      isFixing
        ? `${left.length} of ${findings.length} leftovers stay: the last column says why`
        : `${left.length} leftovers: --fix would clean ${left.length - byHand} of them`,
      { leftovers: left.length },
    );
  },
};

function rowOf({ state, kind, what, about, next }: Finding): string[] {
  return [state, kind, what, about, next];
}

async function optionsOf(session: Session): Promise<CheckOptions> {
  const settings = await session.settings();
  const { address } = await session.client();
  const asked = new Map<string, Promise<Attachments>>();
  return {
    executors: await session.executors(),
    mountPath: settings.operations.mount.path,
    signal: session.signal,
    attachments({ server, service }) {
      const known = asked.get(`${server} ${service}`);
      if (known !== undefined) return known;
      const answer =
        server === address
          ? ask(session, service)
          : Promise.resolve({
              known: false,
              why: `its server is ${server}, and this is a check with ${address}`,
            } as const);
      asked.set(`${server} ${service}`, answer);
      return answer;
    },
    giveBack({ server, service }: KnownService) {
      if (server !== address) return undefined;
      return async (volumeID) => {
        const volumes = await session.hostVolumes(service);
        await volumes.unmount(volumeID, { force: true }, await session.context());
      };
    },
  };
}

async function ask(session: Session, service: string): Promise<Attachments> {
  try {
    const { host } = await session.hostVolumes(service);
    return { known: true, volumeIDs: await host.ownVolumes(await session.context()) };
  } catch (error) {
    return { known: false, why: error instanceof Error ? error.message : String(error) };
  }
}
