/** What this host has of a volume, by what the server says. */
import { isDeepStrictEqual } from "node:util";
import type { CallContext, VolumeAttachment } from "@libstorage/model";
import { attachedBy } from "./host-service.js";
import type { HostService } from "./host-service.js";
import { mayPass } from "./mount-errors.js";

/**
 * Does something with what the server shows as this host's. One that has just been started shows what it is about to
 * take back, because it was giving it when it ended. So after a failure it is asked for the volume again, which waits
 * for that; where the answer is another, the act is done once more with that one.
 * @param own undefined: this host has nothing yet
 */
export async function withOwn<T>(
  host: HostService,
  own: VolumeAttachment | undefined,
  context: CallContext,
  act: (own: VolumeAttachment | undefined) => Promise<T>,
): Promise<T> {
  try {
    return await act(own);
  } catch (error) {
    if (own === undefined || !mayPass(error)) throw error;
    const held = await host.hold(own.volumeID, false, context).catch(() => undefined);
    const now = held && (await host.ownAttachment(held.volume, context));
    if (now === undefined || isDeepStrictEqual(attachedBy(now), attachedBy(own))) throw error;
    return act(now);
  }
}
