/**
 * What tells one turn of a holder from the next: the service keeps it with the attachment, and forgets it with it.
 * So what this host noted in one turn cannot be taken for what is so in another, with others in between.
 */
import { randomUUID } from "node:crypto";
import type { Opts, VolumeAttachment } from "@libstorage/model";

const TOKEN = "holder.token";

/** For the options of an attach. One that changes nothing leaves the token that is there. */
export function newHoldToken(): Opts {
  return { [TOKEN]: randomUUID() };
}

/** Empty for an attachment that was made without one. */
export function tokenOf({ fields = {} }: Pick<VolumeAttachment, "fields">): string {
  return fields[TOKEN] ?? "";
}
