<?php

$main = 1;
