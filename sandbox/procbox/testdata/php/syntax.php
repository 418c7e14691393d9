<?php
return function ($context) {
    return $context->res->text("never"
};
