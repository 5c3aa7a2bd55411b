/** The keys that both iSCSI exporters have. */
import { isAbsolute } from "node:path";
import * as v from "valibot";
import { CHAP_MODES } from "./chap.js";
import { IQN_PREFIX } from "./names.js";
import { parsePortal } from "./portals.js";
import type { Portal } from "./portals.js";

export const absolutePath = v.pipe(
  v.string(),
  v.check((path) => isAbsolute(path), "must be an absolute path"),
  v.check((path) => !/[\0\n]/.test(path), "must not have a NUL or a line break"),
);

const portal = v.pipe(
  v.string(),
  v.rawTransform<string, Portal>(({ dataset, addIssue, NEVER }) => {
    const found = parsePortal(dataset.value);
    if (found !== undefined) return found;
    addIssue({ message: "must be an address such as 10.0.0.1, 10.0.0.1:3260 or [fd00::1]:3260" });
    return NEVER;
  }),
);

export const sharedKeys = {
  portals: v.optional(
    v.pipe(
      v.array(portal),
      v.description(
        'Where targets listen: addresses of this host, each with a port if it is not 3260, such as `[10.0.0.1, "[fd00::1]:3261"]`; a holder uses all of them. Without it: every address that other hosts can reach, of which a holder is told those in a network of its own.',
      ),
    ),
    [],
  ),
  iqnPrefix: v.optional(
    v.pipe(
      v.string(),
      v.description("With what the names of targets begin."),
      v.regex(IQN_PREFIX, "must be like iqn.2026-01.org.example, in small letters"),
      v.maxLength(64),
    ),
    "iqn.2026-01.io.libstorage",
  ),
  discard: v.optional(
    v.pipe(
      v.boolean(),
      v.description(
        "Whether initiators may discard blocks, where the volume's device can: without it a thin volume never gets smaller.",
      ),
    ),
    true,
  ),
  chap: v.optional(
    v.pipe(
      v.strictObject({
        mode: v.optional(
          v.pipe(
            v.picklist(CHAP_MODES),
            v.description(
              "Who shows a password: `mutual` both ends, `one-way` the initiator, `none` nobody, which lets in whoever claims the name of an initiator that was let in.",
            ),
          ),
          "mutual",
        ),
        secretsFile: v.optional(
          v.pipe(
            absolutePath,
            v.description(
              "The YAML file of the passwords, which only its owner may read: a list of `initiator` (a name, or `*`), `user`, `secret`, and for `mutual` `targetUser` and `targetSecret`.",
            ),
          ),
        ),
      }),
      v.forward(
        v.check(
          ({ mode, secretsFile }) => mode === "none" || secretsFile !== undefined,
          "is missing; without passwords set chap.mode to none",
        ),
        ["secretsFile"],
      ),
    ),
    {},
  ),
};
