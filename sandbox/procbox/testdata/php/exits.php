<?php

fwrite(STDERR, "ended while it was loaded\n");
exit(3);
