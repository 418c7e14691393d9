<?php

throw new RuntimeException('raised at load');
