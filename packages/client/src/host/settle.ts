/** What processes of this host have left between two states. */
import type { CallContext } from "@libstorage/model";
import type { HostVolumes } from "./host-volumes.js";
import { usesOf } from "./mount-records.js";
import { seenElsewhere } from "./other-namespaces.js";

/** What became of a volume that was found in a state between. */
export interface Settled {
  readonly volumeID: string;
  readonly name: string;
  /** `forgotten`: its uses, since somebody else unmounted it. */
  readonly outcome: "forgotten" | "given back" | "failed";
  readonly error?: unknown;
}

/**
 * Ends what an earlier process began and did not end, and gives back what nobody uses any more, such as
 * volumes of before the host's last start. What is in use stays as it is.
 * @returns how many volumes are still to be settled
 */
export async function settleMounts(
  volumes: HostVolumes,
  context: CallContext,
  report: (report: Settled) => void,
): Promise<number> {
  const { local } = volumes;
  const { records } = local;
  let left = 0;
  for (const { volumeID, name } of await records.all())
    try {
      await volumes.locked(volumeID, context, async () => {
        const record = await records.read(volumeID);
        if (record === undefined) return;
        const stands = await local.stands(record);
        if (record.phase === "mounted" && usesOf(record) > 0) {
          if (stands) return;
          await records.remove(volumeID);
          report({ volumeID, name, outcome: "forgotten" });
          return;
        }
        if (stands && (await seenElsewhere(record.mountPoint)).length > 0) {
          left += 1;
          return;
        }
        await volumes.end(record, stands, context);
        report({ volumeID, name, outcome: "given back" });
      });
    } catch (error) {
      left += 1;
      report({ volumeID, name, outcome: "failed", error });
    }
  return left;
}
