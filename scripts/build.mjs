// Builds every package; installs what that needs first. `npm run build`
import { build, install } from "./setup.mjs";

install();
build();
